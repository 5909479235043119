//! What should be done next: the leader's turn and the cell's reconciliation, pure.
