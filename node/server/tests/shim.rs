//! The shim of this crate's own tests; a node uses its own binary.

fn main() {
    container::container::shim::main()
}
