//! Containers: one verb or concern a file.
