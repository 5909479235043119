//! The real world a node runs in: config, driver, faces, over tokio.
