//! Every bound of planning, by name, with its source.

use model::Millis;

/// A cell that is silent for longer is missing. Diego: the rep's presence TTL, renewed every 5 s.
pub const PRESENCE_TTL: Millis = Millis::from_secs(15);

/// Most commands of one turn; what is left goes into the next. One turn is one proposal.
pub const TURN_COMMANDS_MAX: usize = model::limits::PROPOSAL_COMMANDS_MAX;

/// Most bytes of reasons in one turn. Ours: a proposal is refused above 8 MiB, and the names that
/// the commands carry take their part; thousands of losers with long tags must not stop a turn.
pub const TURN_REASON_BYTES_MAX: usize = 2 << 20;

/// A rejected task rests this long before it is auctioned again. Diego: the next convergence
/// re-auctions it, and `convergence_repeat_interval` is 30 s.
pub const TASK_REJECTED_REST: Millis = Millis::from_secs(30);

/// Most callbacks of tasks under way at once. Diego: `task_callback_workers`.
pub const CALLBACKS_MAX: usize = 1000;
/// When as many are, a turn looks again after this long. Ours.
pub const CALLBACKS_LOOK: Millis = Millis(100);

/// Most names that one explanation lists; the rest are counted. Ours: it is read on one line.
pub const NAMES_LISTED_MAX: usize = 5;
