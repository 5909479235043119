//! What is agreed: openraft wired to the model, over narrow Disk and Network traits.
