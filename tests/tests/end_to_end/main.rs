//! Clusters of real processes, each on a machine of its own.

mod bad_input;
mod cell_routes;
mod diego;
mod disks;
mod http;
mod images;
mod losses;
mod nats;
mod network;
mod recipes;
mod routing;
mod ssh;
mod staging;
mod tasks;
mod tls;
mod usage;
mod way_in;
