//! **Images of Docker are taken, and instances of them wanted, while the flag is set, and only then.**
//!
//! From the entry on that sets it; tasks that run, run on. Source: docker.md, "diego_docker".

use std::sync::Arc;

use model::{ActualLrp, Command, FeatureFlag, Refusal};

use super::Verdict;
use super::state_machine::Step;

pub(super) const NAME: &str = "a feature flag is obeyed from the next command on";

/// Whether Docker images are allowed.
#[derive(Debug, Default)]
pub(super) struct Flags {
    docker: bool,
}

impl Flags {
    /// Judges one command by what came of it.
    #[expect(clippy::wildcard_enum_match_arm, reason = "of all commands only these bring images")]
    pub(super) fn check(&mut self, step: &Step) -> Verdict {
        let rootfs = match &step.command {
            Command::SetFeatureFlag { flag: FeatureFlag::DiegoDocker, enabled } => {
                self.docker = *enabled;
                let needs_it = |row: &&Arc<ActualLrp>| {
                    let desired = step.after.desired_lrp(&row.key.process_guid);
                    desired.is_some_and(|lrp| lrp.rootfs.starts_with("docker:"))
                };
                return match step.after.actual_lrps().find(needs_it) {
                    Some(row) if !self.docker => Err(format!("{:?} is still wanted", row.id())),
                    Some(_) | None => Ok(()),
                };
            }
            Command::DesireLrp { desired_lrp } => &desired_lrp.rootfs,
            Command::DesireTask { definition, .. } => &definition.rootfs,
            _ => return Ok(()),
        };
        let is_docker = rootfs.starts_with("docker:");
        match &step.result {
            Ok(_) if is_docker && !self.docker => Err(format!("{rootfs} was taken, and is off")),
            Err(Refusal::FeatureDisabled(_)) if self.docker || !is_docker => {
                Err(format!("{rootfs} was refused, and is on"))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{Millis, Proposal, State};

    use super::*;
    use crate::world::samples;

    #[test]
    fn what_was_taken_or_refused_against_the_flag_is_seen() {
        let step = |command, result| Step {
            before: State::default(),
            after: State::default(),
            command,
            result,
        };
        let flag = FeatureFlag::DiegoDocker;
        let desire = || {
            let lrp = samples::desired_lrp("app", 1, "d".into(), "docker:///nginx");
            Command::DesireLrp { desired_lrp: Box::new(lrp) }
        };
        let refused = || Err(Refusal::FeatureDisabled(FeatureFlag::DiegoDocker));
        let mut flags = Flags::default();
        assert!(flags.check(&step(desire(), Ok(true))).is_err());
        assert_eq!(flags.check(&step(desire(), refused())), Ok(()));
        let on = Command::SetFeatureFlag { flag, enabled: true };
        assert_eq!(flags.check(&step(on, Ok(true))), Ok(()));
        assert_eq!(flags.check(&step(desire(), Ok(true))), Ok(()));
        assert!(flags.check(&step(desire(), refused())).is_err());

        let mut runs = State::default();
        let commands = vec![Command::SetFeatureFlag { flag, enabled: true }, desire()];
        model::apply_proposal(&mut runs, 1, Proposal { at: Millis(1), commands });
        let off = || Command::SetFeatureFlag { flag, enabled: false };
        let kept = Step { after: runs.clone(), ..step(off(), Ok(true)) };
        assert!(flags.check(&kept).is_err(), "an instance is still wanted");
        let mut ended = runs;
        let commands = vec![off()];
        model::apply_proposal(&mut ended, 2, Proposal { at: Millis(2), commands });
        assert_eq!(flags.check(&Step { after: ended, ..step(off(), Ok(true)) }), Ok(()));
    }
}
