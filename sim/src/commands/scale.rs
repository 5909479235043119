//! What things cost in large clusters: a table for each size, and a drawing of how cost grows.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;

use anyhow::Context;
use sim::scale::{Cost, Size, measure};

pub(crate) fn run(
    members: &[u64],
    voters: u64,
    instances_per_cell: u64,
    plot: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let mut measured = Vec::new();
    for members in members.iter().copied() {
        let size = Size { members, voters, instances_per_cell };
        println!(
            "\n### {members} cells, {} instances, {voters} voters\n\n\
             | what | instances | time | entries | log bytes an instance | leader's messages | \
             leader's MB | an instance: messages | kB |\n|---|---|---|---|---|---|---|---|---|",
            members * instances_per_cell
        );
        let began = now();
        let costs: Rc<RefCell<Vec<Cost>>> = Rc::default();
        let into = costs.clone();
        measure(size, move |cost| {
            println!("{}", row(cost));
            into.borrow_mut().push(cost.clone());
        });
        println!("\n{} s of one core to simulate.", began.elapsed().as_secs());
        measured.push((members, costs.take()));
    }
    if let Some(path) = plot {
        let drawn = draw(&measured);
        write(path, &drawn).with_context(|| format!("{}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::disallowed_methods, reason = "what a measurement takes is real time")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "a drawing is a file")]
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::write(path, text)
}

/// `part` for each of `whole`, in tenths.
fn each(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    let tenths = part * 10 / whole;
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn row(cost: &Cost) -> String {
    let Cost { what, instances, took, entries, log_bytes, leader_messages, leader_bytes } = cost;
    format!(
        "| {what} | {instances} | {}.{:01} s | {entries} | {} | {leader_messages} | {} | {} | {} |",
        took.as_secs(),
        took.subsec_millis() / 100,
        each(*log_bytes, *instances),
        leader_bytes / 1_000_000,
        each(*leader_messages, *instances),
        each(leader_bytes / 1000, *instances),
    )
}

/// What is drawn, and how it is named there.
const DRAWN: &[(&str, &str, &str)] = &[
    ("they are desired, placed and run", "place and run", "#1f77b4"),
    ("everything is evacuated, in turn", "evacuate", "#d62728"),
    ("a zone is lost", "lose a zone", "#2ca02c"),
];

/// Bytes that the leader sends for an instance, against the number of members.
fn draw(measured: &[(u64, Vec<Cost>)]) -> String {
    const WIDTH: u64 = 720;
    const HEIGHT: u64 = 400;
    const MARGIN: u64 = 70;
    let figure = |costs: &[Cost], what: &str| {
        let cost = costs.iter().find(|cost| cost.what == what && cost.instances > 0)?;
        Some(cost.leader_bytes / 1000 / cost.instances)
    };
    let most_members = measured.iter().map(|(members, _)| *members).max().unwrap_or(1).max(1);
    let all = measured
        .iter()
        .flat_map(|(_, costs)| DRAWN.iter().filter_map(|(what, _, _)| figure(costs, what)));
    let most = all.max().unwrap_or(1).max(1);
    let x = |members: u64| MARGIN + members * (WIDTH - 2 * MARGIN) / most_members;
    let y = |value: u64| HEIGHT - MARGIN - value * (HEIGHT - 2 * MARGIN) / most;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{MARGIN}\" y=\"30\">kB that the leader sends for an instance, \
         against members of the cluster</text>\n"
    );
    let mut line = |text: std::fmt::Arguments<'_>| {
        let _into_memory = writeln!(svg, "{text}");
    };
    let (left, bottom, right) = (MARGIN, HEIGHT - MARGIN, WIDTH - MARGIN);
    line(format_args!(
        "<path d=\"M{left} {MARGIN} V{bottom} H{right}\" fill=\"none\" stroke=\"black\"/>"
    ));
    for (members, _) in measured {
        let at = x(*members);
        let below = bottom + 18;
        line(format_args!(
            "<text x=\"{at}\" y=\"{below}\" text-anchor=\"middle\">{members}</text>"
        ));
    }
    for part in 0..=4 {
        let value = most * part / 4;
        let at = y(value);
        let before = left - 8;
        line(format_args!("<text x=\"{before}\" y=\"{at}\" text-anchor=\"end\">{value}</text>"));
        line(format_args!("<path d=\"M{left} {at} H{right}\" stroke=\"#ddd\"/>"));
    }
    for (number, (what, name, colour)) in (0_u64..).zip(DRAWN) {
        let points: Vec<String> = measured
            .iter()
            .filter_map(|(members, costs)| {
                Some(format!("{},{}", x(*members), y(figure(costs, what)?)))
            })
            .collect();
        let points = points.join(" ");
        line(format_args!(
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        ));
        let (at, top) = (left + 20, MARGIN + 20 * number);
        line(format_args!("<text x=\"{at}\" y=\"{top}\" fill=\"{colour}\">{name}</text>"));
    }
    svg.push_str("</svg>\n");
    svg
}
