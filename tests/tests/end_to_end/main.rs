//! Clusters of real processes, each on a machine of its own.

mod bad_input;
mod images;
mod losses;
mod recipes;
mod tasks;
mod tls;
mod way_in;
