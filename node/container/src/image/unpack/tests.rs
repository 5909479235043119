//! Honest tars unpack as they say, and hostile ones write nothing outside the root.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

/// One entry as a tar has it, whatever it is.
#[derive(Clone, Debug)]
struct Made {
    kind: u8,
    name: Vec<u8>,
    link: Vec<u8>,
    mode: u32,
    data: Vec<u8>,
}

fn made(kind: u8, name: &str, link: &str, data: &str) -> Made {
    let mode = if kind == b'5' { 0o755 } else { 0o644 };
    Made { kind, name: name.into(), link: link.into(), mode, data: data.into() }
}

fn file(name: &str, data: &str) -> Made {
    made(b'0', name, "", data)
}

fn hardlink(name: &str, target: &str) -> Made {
    made(b'1', name, target, "")
}

fn symlink(name: &str, target: &str) -> Made {
    made(b'2', name, target, "")
}

fn dir(name: &str) -> Made {
    made(b'5', name, "", "")
}

/// A ustar header and the data, padded; no name is refused here.
fn block(made: &Made) -> Vec<u8> {
    let mut header = ::tar::Header::new_ustar();
    header.set_entry_type(::tar::EntryType::new(made.kind));
    header.set_mode(made.mode);
    header.set_size(made.data.len() as u64);
    header.set_mtime(1_000_000_000);
    let bytes = header.as_mut_bytes();
    bytes[..made.name.len()].copy_from_slice(&made.name);
    bytes[157..157 + made.link.len()].copy_from_slice(&made.link);
    header.set_cksum();
    let mut block = header.as_bytes().to_vec();
    block.extend(&made.data);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

fn tar_of(entries: &[Made]) -> Vec<u8> {
    let mut tar: Vec<u8> = entries.iter().flat_map(block).collect();
    tar.extend([0; 1024]);
    tar
}

/// A root with neighbours that nobody may touch.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/canary"), "alive").unwrap();
        Self { dir }
    }

    fn unpack(&self, tar: &[u8]) -> Result<u64, Fault> {
        let bounds = Bounds { bytes: 1 << 20, entries: 1000 };
        let result = unpack(tar, &self.dir.path().join("root"), bounds);
        let tops = listing(self.dir.path(), 1);
        // A tar may say the root's own mode.
        let (neighbours, root) = tops.rsplit_once('\n').unwrap();
        assert_eq!(neighbours, "outside/ 755\noutside/canary 644 alive", "{result:?}");
        assert!(root.starts_with("root/ "), "{result:?}: {tops}");
        result
    }

    fn shown(&self) -> String {
        listing(&self.dir.path().join("root"), usize::MAX)
    }
}

/// What is in a directory, with types, modes and contents; `depth` 1 leaves the root's out.
fn listing(dir: &Path, depth: usize) -> String {
    fn walk(base: &Path, at: &Path, depth: usize, lines: &mut Vec<String>) {
        let mut entries: Vec<_> = fs::read_dir(at).unwrap().flatten().map(|e| e.path()).collect();
        entries.sort();
        for path in entries {
            let name = path.strip_prefix(base).unwrap().display().to_string();
            let meta = fs::symlink_metadata(&path).unwrap();
            let (kind, mode) = (meta.file_type(), meta.permissions().mode() & 0o7777);
            if kind.is_dir() {
                lines.push(format!("{name}/ {mode:o}"));
                if depth > 1 || name != "root" {
                    walk(base, &path, depth, lines);
                }
            } else if kind.is_symlink() {
                lines.push(format!("{name} -> {}", fs::read_link(&path).unwrap().display()));
            } else if kind.is_char_device() {
                lines.push(format!("{name} device {}", meta.rdev()));
            } else if kind.is_fifo() {
                lines.push(format!("{name} fifo {mode:o}"));
            } else {
                let text = fs::read_to_string(&path).unwrap_or_default();
                lines.push(format!("{name} {mode:o} {}", &text[..text.len().min(20)]));
            }
        }
    }
    let mut lines = Vec::new();
    walk(dir, dir, depth, &mut lines);
    lines.join("\n")
}

/// Unpacks, and shows what is there then, or why nothing is.
fn check(entries: &[Made], expected: Expect) {
    let world = World::new();
    let shown = match world.unpack(&tar_of(entries)) {
        Ok(bytes) => format!("{bytes} bytes\n{}", world.shown()),
        Err(Fault::Bad { entry, reason }) => format!("{entry}: {reason}"),
        Err(fault) => format!("{fault:?}"),
    };
    expected.assert_eq(&shown);
}

#[test]
fn files_links_and_directories() {
    check(
        &[
            dir("etc"),
            file("etc/motd", "moin"),
            Made { mode: 0o4755, ..file("su", "setuid") },
            hardlink("etc/again", "etc/motd"),
            symlink("etc/far", "../../../outside/canary"),
            Made { mode: 0o1777, ..dir("tmp/") },
            made(b'6', "queue", "", ""),
            file("deep/er/file", "parents are made"),
        ],
        expect![[r#"
            26 bytes
            deep/ 755
            deep/er/ 755
            deep/er/file 644 parents are made
            etc/ 755
            etc/again 644 moin
            etc/far -> ../../../outside/canary
            etc/motd 644 moin
            su 4755 setuid
            tmp/ 1777"#]],
    );
}

#[test]
fn names_that_lead_out_stay_inside() {
    check(
        &[file("/absolute", "a"), file("../../outside/canary", "b"), file("a/../../../c", "c")],
        expect![[r#"
            3 bytes
            absolute 644 a
            c 644 c
            outside/ 755
            outside/canary 644 b"#]],
    );
}

#[test]
fn nothing_is_written_through_a_symlink_that_leads_out() {
    check(
        &[symlink("out", "../outside"), file("out/canary", "dead"), dir("out/new")],
        expect![[r#"
            4 bytes
            out -> ../outside
            outside/ 755
            outside/canary 644 dead
            outside/new/ 755"#]],
    );
    check(
        &[symlink("out", "/outside"), symlink("again", "out"), file("again/canary", "dead")],
        expect![[r#"
            4 bytes
            again -> out
            out -> /outside
            outside/ 755
            outside/canary 644 dead"#]],
    );
}

#[test]
fn a_file_takes_a_symlinks_place_and_not_its_target() {
    check(
        &[symlink("log", "../outside/canary"), file("log", "dead")],
        expect![[r#"
        4 bytes
        log 644 dead"#]],
    );
}

#[test]
fn hard_links_reach_nothing_outside() {
    check(
        &[hardlink("mine", "../outside/canary")],
        expect![[r#"mine: a hard link to "outside/canary", which the layer does not hold"#]],
    );
    check(
        &[symlink("out", "../outside"), hardlink("mine", "out/canary")],
        expect![[r#"mine: a hard link to "out/canary", which the layer does not hold"#]],
    );
    check(
        &[hardlink("mine", "/etc/shadow")],
        expect![[r#"mine: a hard link to "etc/shadow", which the layer does not hold"#]],
    );
    check(
        &[dir("d"), hardlink("mine", "d")],
        expect![[r#"mine: a hard link to "d", a directory"#]],
    );
}

#[test]
fn whiteouts_become_overlayfs_whiteouts() {
    check(
        &[dir("a"), file("a/.wh.gone", ""), file(".wh.top", ""), file(".wh..wh.plnk", "")],
        expect![[r#"
            0 bytes
            a/ 755
            a/gone device 0
            top device 0"#]],
    );
    let world = World::new();
    world.unpack(&tar_of(&[dir("a"), file("a/.wh..wh..opq", "")])).unwrap();
    let opaque = xattr::get(world.dir.path().join("root/a"), "trusted.overlay.opaque").unwrap();
    assert_eq!(opaque.as_deref(), Some(&b"y"[..]));
}

#[test]
fn whiteouts_that_name_no_entry_are_refused() {
    check(&[file("a/.wh.", "")], expect!["a/.wh.: a whiteout of nothing"]);
    check(&[file("a/.wh..", "")], expect!["a/.wh..: a whiteout of nothing"]);
    check(&[file("a/.wh...", "")], expect!["a/.wh...: a whiteout of nothing"]);
}

#[test]
fn a_later_entry_takes_the_place_of_an_earlier_one() {
    check(
        &[file("x", "file"), dir("x"), file("x/y", "below"), dir("z"), file("z", "file")],
        expect![[r#"
            13 bytes
            x/ 755
            x/y 644 below
            z 644 file"#]],
    );
}

#[test]
fn what_is_no_tar_is_refused() {
    let shown = |tar: &[u8]| format!("{:?}", World::new().unpack(tar).unwrap_err());
    let whole = tar_of(&[file("a", "text")]);
    expect![[r#"Bad { entry: "number 1", reason: "the tar ends in its middle" }"#]]
        .assert_eq(&shown(&whole[..514]));
    let mut bad = whole;
    bad[0] ^= 1;
    expect![[r#"Bad { entry: "number 1", reason: "the header's checksum is wrong" }"#]]
        .assert_eq(&shown(&bad));
    expect![[r#"Bad { entry: "number 1", reason: "checksum is not a number" }"#]]
        .assert_eq(&shown(&[b'x'; 2048]));
    let mut huge = block(&file("a", ""));
    huge[124..136].copy_from_slice(b"77777777777\0");
    huge[148..156].copy_from_slice(b"        ");
    let sum: u32 = huge.iter().map(|byte| u32::from(*byte)).sum();
    huge[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    expect![[r#"TooLarge("1048576 bytes")"#]].assert_eq(&shown(&huge));
}

#[test]
fn bounds_hold() {
    let many: Vec<_> = (0..1001).map(|number| file(&format!("f{number}"), "")).collect();
    expect![[r#"TooLarge("1000 entries")"#]]
        .assert_eq(&format!("{:?}", World::new().unpack(&tar_of(&many)).unwrap_err()));
    let large = vec![file("a", &"x".repeat(700_000)), file("b", &"x".repeat(700_000))];
    expect![[r#"TooLarge("1048576 bytes")"#]]
        .assert_eq(&format!("{:?}", World::new().unpack(&tar_of(&large)).unwrap_err()));
}

#[test]
fn an_empty_layer_is_a_layer() {
    check(
        &[],
        expect![[r#"
        0 bytes
    "#]],
    );
}

/// Short names that meet one another often.
fn name() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("a"),
        Just("b"),
        Just(".."),
        Just("."),
        Just(".wh.a"),
        Just(".wh..wh..opq"),
        Just(".wh..."),
        Just("outside"),
        Just("canary"),
        Just(""),
    ];
    proptest::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"))
}

fn any_entry() -> impl Strategy<Value = Made> {
    let kind = prop_oneof![
        Just(b'0'),
        Just(b'1'),
        Just(b'2'),
        Just(b'3'),
        Just(b'4'),
        Just(b'5'),
        Just(b'6'),
        Just(b'L'),
        Just(b'x'),
        any::<u8>()
    ];
    (kind, name(), name(), 0..0o10_000_u32, "[a-z]{0,9}")
        .prop_map(|(kind, name, link, mode, data)| Made { mode, ..made(kind, &name, &link, &data) })
}

proptest! {
    /// [`World::unpack`] looks at the neighbours.
    #[test]
    fn whatever_a_tar_says_the_neighbours_stay(
        entries in proptest::collection::vec(any_entry(), 0..12)
    ) {
        let _ = World::new().unpack(&tar_of(&entries));
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_harmless(
        entries in proptest::collection::vec(any_entry(), 1..4),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        let mut tar = tar_of(&entries);
        for (at, value) in flips {
            let at = at.index(tar.len());
            tar[at] = value;
        }
        let _ = World::new().unpack(&tar);
    }
}

#[test]
fn in_what_is_no_layer_a_whiteouts_name_is_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let tar = tar_of(&[file("kept", "1"), file(".wh.kept", "22"), file("../up", "3")]);
    assert_eq!(expand(tar.as_slice(), dir.path(), 1 << 20).unwrap(), 4);
    assert_eq!(fs::read_to_string(dir.path().join("kept")).unwrap(), "1");
    assert_eq!(fs::read_to_string(dir.path().join(".wh.kept")).unwrap(), "22");
    assert_eq!(fs::read_to_string(dir.path().join("up")).unwrap(), "3");
    let error = expand(tar.as_slice(), dir.path(), 3).unwrap_err();
    assert_eq!(error.to_string(), "more than 3 bytes");
}

#[test]
fn an_attribute_that_no_file_can_have_is_the_layers_fault() {
    // The kernel takes no file capability of a length that it does not know.
    let record = "34 SCHILY.xattr.security.capability=x\n";
    let record = record.replacen("34", &record.len().to_string(), 1);
    check(
        &[made(b'x', "x", "", &record), file("a", "1")],
        expect!["a: an attribute security.capability that Linux does not take"],
    );
}
