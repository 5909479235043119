//! `logs`: what an app's instances say, merged by time.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::admin::{Consistency, LogChunk, LogCursor, LogLine, LogSource};
use clap::Args;
use model::{DesiredLrp, ProcessGuid};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::parse_guid;
use crate::cli::Caller;
use crate::client::Client;
use crate::failure::Failure;
use crate::limits::{
    LOG_CHUNKS_MAX, LOG_MERGE_WINDOW, LOG_SCALE_LOOK, RETRY_WAIT_MAX, RETRY_WAIT_MIN,
};
use crate::output::Screen;
use crate::units;

/// Follows what an app's instances say, from the oldest line that is kept
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gavel logs hello            until Ctrl-C
  gavel logs hello --recent   what is kept, and no more")]
pub(crate) struct Logs {
    #[arg(value_parser = parse_guid::<ProcessGuid>)]
    app: ProcessGuid,
    /// Prints what is kept, and ends
    #[arg(long)]
    recent: bool,
}

impl Logs {
    pub(crate) async fn run(self, mut caller: Caller) -> Result<(), Failure> {
        let lrp = caller.client.desired_lrp(&self.app, Consistency::Linearizable).await?;
        if self.recent {
            return recent(&caller, &lrp).await;
        }
        tokio::select! {
            outcome = follow(&mut caller, lrp) => outcome,
            // Being told to stop is how following ends.
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    }
}

/// A line, with the instance that said it. The order of fields is the order of printing; the
/// sequence keeps the lines of one instance as they were said.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Said {
    at_ns: i64,
    index: u32,
    sequence: u64,
    is_stderr: bool,
    source: String,
    text: String,
}

/// Lines that wait to be printed in order.
#[derive(Debug, Default)]
struct Merge {
    lines: Vec<Said>,
    sequence: u64,
}

impl Merge {
    fn add(&mut self, index: u32, lines: Vec<LogLine>) {
        for LogLine { at_ns, is_stderr, source, text } in lines {
            let sequence = self.sequence;
            self.sequence += 1;
            self.lines.push(Said { at_ns, index, sequence, is_stderr, source, text });
        }
    }

    fn print(&mut self, source: &str, screen: Screen) -> Result<(), Failure> {
        self.lines.sort_unstable();
        for said in self.lines.drain(..) {
            let Said { at_ns, index, is_stderr, text, .. } = said;
            let of = if said.source.is_empty() { source } else { &said.source };
            let named = format!("{of}/{index}");
            if screen.is_json() {
                let line = LogLine { at_ns, is_stderr, source: said.source, text };
                screen.line(api::json::log_line(&named, &line))?;
                continue;
            }
            let kind = if is_stderr { "ERR" } else { "OUT" };
            let stamp = units::log_stamp(at_ns);
            screen.line(format_args!("{stamp} [{named}] {kind} {text}"))?;
        }
        Ok(())
    }
}

/// Diego calls the source of a definition that names none `LOG`.
fn source(lrp: &DesiredLrp) -> &str {
    if lrp.log_source.is_empty() { "LOG" } else { &lrp.log_source }
}

async fn ask(
    client: &mut Client,
    app: &ProcessGuid,
    index: u32,
    from: Option<LogCursor>,
    follow: bool,
) -> Result<LogChunk, Failure> {
    let source = LogSource::Lrp { process_guid: app.clone(), index };
    client
        .poll(async |admin, context| {
            admin.logs(context, source.clone(), from.clone(), follow).await
        })
        .await
}

async fn recent(caller: &Caller, lrp: &DesiredLrp) -> Result<(), Failure> {
    let app = &lrp.process_guid;
    let each = lrp.indices().map(|index| {
        let client = caller.client.fork();
        async move { (index, kept(client, app, index).await) }
    });
    let mut merge = Merge::default();
    let mut worst = None;
    for (index, (lines, failure)) in futures_util::future::join_all(each).await {
        merge.add(index, lines);
        if let Some(failure) = failure {
            eprintln!("{}/{index}: {failure}", source(lrp));
            worst = Some(failure);
        }
    }
    let is_empty = merge.lines.is_empty();
    merge.print(source(lrp), caller.screen)?;
    // What the others have said is an answer; it takes all of them to fail.
    match worst {
        Some(failure) if is_empty => Err(failure),
        Some(_) | None => Ok(()),
    }
}

/// Everything that is kept of one instance, and what ended the reading early.
async fn kept(
    mut client: Client,
    app: &ProcessGuid,
    index: u32,
) -> (Vec<LogLine>, Option<Failure>) {
    let mut lines = Vec::new();
    let mut from = None;
    loop {
        match ask(&mut client, app, index, from, false).await {
            Ok(chunk) if chunk.lines.is_empty() => return (lines, None),
            Ok(chunk) => {
                lines.extend(chunk.lines);
                from = Some(chunk.next);
            }
            Err(failure) => return (lines, Some(failure)),
        }
    }
}

async fn follow(caller: &mut Caller, mut lrp: Arc<DesiredLrp>) -> Result<(), Failure> {
    let (sender, mut chunks) = mpsc::channel(LOG_CHUNKS_MAX);
    let mut followers = Followers { sender, tasks: BTreeMap::new() };
    let mut merge = Merge::default();
    let mut print_at: Option<Instant> = None;
    let mut scale_look = tokio::time::interval(LOG_SCALE_LOOK);
    loop {
        let printing = async {
            match print_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = printing => {
                print_at = None;
                merge.print(source(&lrp), caller.screen)?;
            }
            chunk = chunks.recv() => {
                let (index, lines) = chunk.expect("the followers hold a sender");
                merge.add(index, lines);
                print_at = print_at.or_else(|| Some(Instant::now() + LOG_MERGE_WINDOW));
            }
            _ = scale_look.tick() => {
                match caller.client.desired_lrp(&lrp.process_guid, Consistency::Stale).await {
                    Ok(now) => lrp = now,
                    Err(failure) if failure.may_pass() => {}
                    Err(failure) => {
                        merge.print(source(&lrp), caller.screen)?;
                        return Err(failure);
                    }
                }
                followers.fit(caller, &lrp);
            }
        }
    }
}

/// A task for each instance that is followed.
struct Followers {
    sender: mpsc::Sender<(u32, Vec<LogLine>)>,
    tasks: BTreeMap<u32, JoinHandle<()>>,
}

impl Followers {
    /// As many as the app has instances.
    fn fit(&mut self, caller: &Caller, lrp: &DesiredLrp) {
        let indices = lrp.indices();
        self.tasks.retain(|index, task| {
            let stays = indices.contains(index);
            if !stays {
                task.abort();
            }
            stays
        });
        for index in indices {
            self.tasks.entry(index).or_insert_with(|| {
                let name = format!("{}/{index}", source(lrp));
                let follower = Follower {
                    client: caller.client.fork(),
                    app: lrp.process_guid.clone(),
                    index,
                    name,
                };
                tokio::task::spawn_local(follower.run(self.sender.clone()))
            });
        }
    }
}

struct Follower {
    client: Client,
    app: ProcessGuid,
    index: u32,
    name: String,
}

impl Follower {
    /// Reads one instance until nobody listens. Its troubles are told once each and are its own:
    /// the others are read on.
    async fn run(mut self, sender: mpsc::Sender<(u32, Vec<LogLine>)>) {
        let mut from = None;
        let mut told = String::new();
        let mut pause = RETRY_WAIT_MIN;
        loop {
            match ask(&mut self.client, &self.app, self.index, from.clone(), true).await {
                Ok(chunk) => {
                    told.clear();
                    pause = RETRY_WAIT_MIN;
                    from = Some(chunk.next);
                    if !chunk.lines.is_empty()
                        && sender.send((self.index, chunk.lines)).await.is_err()
                    {
                        return;
                    }
                }
                Err(failure) => {
                    let reason = failure.to_string();
                    if told != reason {
                        eprintln!("{}: {reason}; trying again", self.name);
                        told = reason;
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_WAIT_MAX);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_merged_by_time_and_those_of_one_instance_keep_their_order() {
        let line = |at_ns, text: &str| LogLine {
            at_ns,
            is_stderr: false,
            source: String::new(),
            text: text.to_owned(),
        };
        let mut merge = Merge::default();
        merge.add(1, vec![line(5, "b"), line(9, "z"), line(9, "a")]);
        merge.add(0, vec![line(4, "a"), line(9, "y")]);
        merge.lines.sort_unstable();
        let told: Vec<_> =
            merge.lines.iter().map(|said| format!("{}{}", said.index, said.text)).collect();
        assert_eq!(told, ["0a", "1b", "0y", "1z", "1a"]);
    }
}
