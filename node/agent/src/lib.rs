//! One node: model, plan and replica joined by loops over narrow traits.
