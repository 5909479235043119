//! The drawing of a document's own tables: how cost grows with the number of members.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, ensure};

#[expect(clippy::disallowed_methods, reason = "a document and its drawing are files")]
pub(crate) fn run(tables: &Path, drawing: &Path) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(tables);
    let text = text.with_context(|| format!("reading {}", tables.display()))?;
    let measured = read(&text);
    ensure!(
        !measured.is_empty(),
        "{} has no tables as `sim scale` prints them, each below \"## N cells, ...\"",
        tables.display()
    );
    let written = std::fs::write(drawing, draw(&measured));
    written.with_context(|| format!("writing {}", drawing.display()))?;
    println!("{} sizes drawn: {}", measured.len(), drawing.display());
    Ok(ExitCode::SUCCESS)
}

/// By the number of members: each thing that was measured, and the kB that the leader sent for an
/// instance, in tenths.
type Measured = BTreeMap<u64, BTreeMap<String, u64>>;

fn read(text: &str) -> Measured {
    let mut measured = Measured::new();
    let mut members = None;
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            let number = heading.split_once(" cells").map(|(number, _)| number.replace(',', ""));
            members = number.and_then(|number| number.parse().ok());
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let (Some(members), ["", what, _, _, _, _, _, _, _, kb, ""]) = (members, &cells[..])
            && let Some(tenths) = kb.split_once('.').and_then(|(whole, tenth)| {
                Some(whole.parse::<u64>().ok()? * 10 + tenth.parse::<u64>().ok()?)
            })
        {
            measured.entry(members).or_default().insert((*what).to_owned(), tenths);
        }
    }
    measured
}

/// What is drawn, and how it is named there.
const DRAWN: &[(&str, &str, &str)] = &[
    ("they are desired, placed and run", "place and run", "#1f77b4"),
    ("everything is evacuated, in turn", "evacuate", "#d62728"),
    ("a zone is lost", "lose a zone", "#2ca02c"),
];

/// Bytes that the leader sends for an instance, against the number of members.
fn draw(measured: &Measured) -> String {
    const WIDTH: u64 = 720;
    const HEIGHT: u64 = 400;
    const MARGIN: u64 = 70;
    let most_members = measured.keys().copied().max().unwrap_or(1).max(1);
    let drawn = |costs: &BTreeMap<String, u64>| {
        DRAWN.iter().filter_map(|(what, _, _)| costs.get(*what).copied()).max()
    };
    let most = measured.values().filter_map(drawn).max().unwrap_or(1).max(1);
    let x = |members: u64| MARGIN + members * (WIDTH - 2 * MARGIN) / most_members;
    let y = |tenths: u64| HEIGHT - MARGIN - tenths * (HEIGHT - 2 * MARGIN) / most;
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
    let mut free = 0;
    for members in measured.keys() {
        let (at, below) = (x(*members), bottom + 18);
        if at < free {
            continue; // it would be written over the one before it
        }
        free = at + 30;
        line(format_args!(
            "<text x=\"{at}\" y=\"{below}\" text-anchor=\"middle\">{members}</text>"
        ));
    }
    for part in 0..=4 {
        let tenths = most * part / 4;
        let (at, value, before) = (y(tenths), tenths / 10, left - 8);
        line(format_args!("<text x=\"{before}\" y=\"{at}\" text-anchor=\"end\">{value}</text>"));
        line(format_args!("<path d=\"M{left} {at} H{right}\" stroke=\"#ddd\"/>"));
    }
    for (number, (what, name, colour)) in (0_u64..).zip(DRAWN) {
        let points: Vec<String> = measured
            .iter()
            .filter_map(|(members, costs)| {
                Some(format!("{},{}", x(*members), y(*costs.get(*what)?)))
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

#[cfg(test)]
mod tests {
    use super::*;

    const TABLES: &str = "\
# Scale

## 25 cells, 5,000 instances

| what | instances | time | entries | log bytes an instance | leader's messages | leader's MB | an instance: messages | kB |
|---|---|---|---|---|---|---|---|---|
| a quiet minute | 0 | 60.0 s | 0 | - | 7920 | 0 | - | - |
| a zone is lost | 400 | 14.1 s | 68 | 149.4 | 6270 | 2 | 15.6 | 6.0 |

## 1,250 cells, 250,000 instances

| a zone is lost | 24801 | 17.4 s | 3375 | 150.2 | 169656 | 4730 | 6.8 | 190.7 |

## What it says

| a zone is lost | 1 | 1 s | 1 | 1.0 | 1 | 1 | 1.0 | 1.0 |
";

    #[test]
    fn the_tables_of_a_document_are_what_is_drawn() {
        let zone = |tenths| BTreeMap::from([("a zone is lost".to_owned(), tenths)]);
        let measured = read(TABLES);
        assert_eq!(measured, BTreeMap::from([(25, zone(60)), (1250, zone(1907))]));
        let drawing = draw(&measured);
        assert!(drawing.contains("<polyline points=\"81,322 650,70\""), "{drawing}");
    }
}
