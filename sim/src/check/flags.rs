//! **Images of Docker are taken while the flag is set, and only then.**
//!
//! From the entry on that sets it. Source: docker.md, "diego_docker".

use model::{Command, FeatureFlag, Refusal};

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
                return Ok(());
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
    use model::State;

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
    }
}
