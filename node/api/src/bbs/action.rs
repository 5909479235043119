//! Recipes.

use model::action::{
    Action, DownloadAction, EmitProgressAction, ManyActions, Nested, RunAction, TimeoutAction,
    TryAction, UploadAction,
};

use super::error::Complaints;
use super::messages as bbs;
use super::parts::{env, env_from, files, files_from};

const NANOS_IN_MILLI: i64 = 1_000_000;

/// Where several kinds are set, Diego takes the first of this order; where none is, it says so, and
/// something that is no action stands there while the rest is looked at.
pub(super) fn action_from(complaints: &mut Complaints, action: bbs::Action) -> Action {
    let bbs::Action {
        download_action,
        upload_action,
        run_action,
        timeout_action,
        emit_progress_action,
        try_action,
        parallel_action,
        serial_action,
        codependent_action,
    } = action;
    if let Some(it) = download_action {
        Action::Download(DownloadAction {
            artifact: it.artifact,
            from: it.from,
            to: it.to,
            cache_key: it.cache_key,
            user: it.user,
            log_source: it.log_source,
            checksum_algorithm: it.checksum_algorithm,
            checksum_value: it.checksum_value,
        })
    } else if let Some(it) = upload_action {
        Action::Upload(UploadAction {
            artifact: it.artifact,
            from: it.from,
            to: it.to,
            user: it.user,
            log_source: it.log_source,
        })
    } else if let Some(it) = run_action {
        Action::Run(run_from(it))
    } else if let Some(it) = timeout_action {
        #[expect(deprecated, reason = "old clients send it")]
        let of_old_clients = it.deprecated_timeout_ns / NANOS_IN_MILLI;
        Action::Timeout(TimeoutAction {
            action: nested_from(complaints, it.action),
            timeout_ms: if it.timeout_ms == 0 { of_old_clients } else { it.timeout_ms },
            log_source: it.log_source,
        })
    } else if let Some(it) = emit_progress_action {
        Action::EmitProgress(EmitProgressAction {
            action: nested_from(complaints, it.action),
            start_message: it.start_message,
            success_message: it.success_message,
            failure_message_prefix: it.failure_message_prefix,
            log_source: it.log_source,
        })
    } else if let Some(it) = try_action {
        let action = nested_from(complaints, it.action);
        Action::Try(TryAction { action, log_source: it.log_source })
    } else if let Some(it) = parallel_action {
        Action::Parallel(many_from(complaints, it.actions, it.log_source))
    } else if let Some(it) = serial_action {
        Action::Serial(many_from(complaints, it.actions, it.log_source))
    } else if let Some(it) = codependent_action {
        Action::Codependent(many_from(complaints, it.actions, it.log_source))
    } else {
        complaints.empty_action()
    }
}

fn run_from(run: bbs::RunAction) -> RunAction {
    #[expect(deprecated, reason = "old clients send nproc")]
    let resource_limits = run
        .resource_limits
        .map(|limits| model::action::ResourceLimits { nofile: limits.nofile, nproc: limits.nproc });
    RunAction {
        path: run.path,
        args: run.args,
        dir: run.dir,
        user: run.user,
        env: env_from(run.env),
        log_source: run.log_source,
        suppress_log_output: run.suppress_log_output,
        resource_limits: resource_limits.unwrap_or_default(),
        volume_mounted_files: files_from(run.volume_mounted_files),
    }
}

fn nested_from(complaints: &mut Complaints, action: Option<Box<bbs::Action>>) -> Option<Nested> {
    action.map(|action| action_from(complaints, *action).into())
}

fn many_from(
    complaints: &mut Complaints,
    actions: Vec<bbs::Action>,
    log_source: String,
) -> ManyActions {
    let mut entry = |action| Some(action_from(complaints, action).into());
    ManyActions { actions: actions.into_iter().map(&mut entry).collect(), log_source }
}

pub(super) fn action(action: &Action) -> bbs::Action {
    let mut wrapper = bbs::Action::default();
    match action {
        Action::Run(it) => wrapper.run_action = Some(run(it)),
        Action::Download(it) => {
            wrapper.download_action = Some(bbs::DownloadAction {
                artifact: it.artifact.clone(),
                from: it.from.clone(),
                to: it.to.clone(),
                cache_key: it.cache_key.clone(),
                log_source: it.log_source.clone(),
                user: it.user.clone(),
                checksum_algorithm: it.checksum_algorithm.clone(),
                checksum_value: it.checksum_value.clone(),
            });
        }
        Action::Upload(it) => {
            wrapper.upload_action = Some(bbs::UploadAction {
                artifact: it.artifact.clone(),
                from: it.from.clone(),
                to: it.to.clone(),
                log_source: it.log_source.clone(),
                user: it.user.clone(),
            });
        }
        Action::Timeout(it) => {
            #[expect(deprecated, reason = "it is nothing")]
            let timeout = bbs::TimeoutAction {
                action: nested(it.action.as_ref()),
                deprecated_timeout_ns: 0,
                log_source: it.log_source.clone(),
                timeout_ms: it.timeout_ms,
            };
            wrapper.timeout_action = Some(Box::new(timeout));
        }
        Action::EmitProgress(it) => {
            wrapper.emit_progress_action = Some(Box::new(bbs::EmitProgressAction {
                action: nested(it.action.as_ref()),
                start_message: it.start_message.clone(),
                success_message: it.success_message.clone(),
                failure_message_prefix: it.failure_message_prefix.clone(),
                log_source: it.log_source.clone(),
            }));
        }
        Action::Try(it) => {
            wrapper.try_action = Some(Box::new(bbs::TryAction {
                action: nested(it.action.as_ref()),
                log_source: it.log_source.clone(),
            }));
        }
        Action::Parallel(it) => {
            let (actions, log_source) = many(it);
            wrapper.parallel_action = Some(bbs::ParallelAction { actions, log_source });
        }
        Action::Serial(it) => {
            let (actions, log_source) = many(it);
            wrapper.serial_action = Some(bbs::SerialAction { actions, log_source });
        }
        Action::Codependent(it) => {
            let (actions, log_source) = many(it);
            wrapper.codependent_action = Some(bbs::CodependentAction { actions, log_source });
        }
    }
    wrapper
}

fn run(run: &RunAction) -> bbs::RunAction {
    let limits = run.resource_limits;
    #[expect(deprecated, reason = "old clients read nproc")]
    let resource_limits = (limits != model::action::ResourceLimits::default())
        .then_some(bbs::ResourceLimits { nofile: limits.nofile, nproc: limits.nproc });
    bbs::RunAction {
        path: run.path.clone(),
        args: run.args.clone(),
        dir: run.dir.clone(),
        env: env(&run.env),
        resource_limits,
        user: run.user.clone(),
        log_source: run.log_source.clone(),
        suppress_log_output: run.suppress_log_output,
        volume_mounted_files: files(&run.volume_mounted_files),
    }
}

fn nested(nested: Option<&Nested>) -> Option<Box<bbs::Action>> {
    nested.map(|Nested(inner)| Box::new(action(inner)))
}

fn many(many: &ManyActions) -> (Vec<bbs::Action>, String) {
    let entry = |entry: &Option<Nested>| {
        entry.as_ref().map(|Nested(inner)| action(inner)).unwrap_or_default()
    };
    (many.actions.iter().map(entry).collect(), many.log_source.clone())
}
