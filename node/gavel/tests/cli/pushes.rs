//! `push`, from an image to instances that run, and everything that may keep it from there.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use api::admin::{ImageMetadata, Routing, Waiting};
use expect_test::expect;
use model::{Action, FeatureFlag};

use crate::fake::{DIGEST, Fake, image};
use crate::{Ran, gavel};

#[test]
fn an_image_becomes_a_running_app() {
    let fake = Fake::start();
    let line = "push hello -o me/hello -i 3 -m 128M -k 512M -e GREETING=hi -e A=";
    let ran = fake.type_in(line);
    expect![[r#"
        staging me/hello
        staged on node-2 by task staging-1
        me/hello is sha256:abababababababababababababababababababababababababababababababab, 3.1 MiB
        hello: 3 of 3 running
    "#]]
    .assert_eq(&ran.err);
    expect![[r#"
        name:      hello
        state:     started
        image:     me/hello
        digest:    sha256:abababababababababababababababababababababababababababababababab
        usage:     128M memory, 512M disk each
        instances: 3/3
        routes:    http://10.0.0.1:61001
                   http://10.0.0.2:61002
                   http://10.0.0.3:61003

             state     since   cell     address     ports
        #0   running   now     node-1   10.88.0.2   61001->8080
        #1   running   now     node-2   10.88.0.2   61002->8080
        #2   running   now     node-3   10.88.0.2   61003->8080
    "#]]
    .assert_eq(&ran.ok());
    let lrp = fake.with(|cluster| cluster.state.desired_lrp(&"hello".into()).cloned().unwrap());
    assert_eq!(lrp.rootfs_digest.as_ref().unwrap().to_string(), DIGEST);
    assert_eq!((lrp.memory_mb, lrp.disk_mb, lrp.log_source.as_str()), (128, 512, "APP/PROC/WEB"));
    let Some(Action::Run(run)) = &lrp.action else { panic!("there is one kind of action") };
    assert_eq!(run.path, "/hello");
    let greeting = run.env.iter().find(|one| one.name == "GREETING").unwrap();
    assert_eq!(greeting.value, "hi");
}

#[test]
fn the_older_name_and_a_start_command() {
    let fake = Fake::start();
    fake.run(["docker-push", "hello", "me/hello", "-c", "exec /hello --fast"]).ok();
    let lrp = fake.with(|cluster| cluster.state.desired_lrp(&"hello".into()).cloned().unwrap());
    let Some(Action::Run(run)) = &lrp.action else { panic!("there is one kind of action") };
    assert_eq!(
        (run.path.as_str(), run.args.join(" ")),
        ("/bin/sh", "-c exec /hello --fast".into())
    );
}

#[test]
fn no_start_makes_the_app_only() {
    let fake = Fake::start();
    let out = fake.type_in("push hello -o me/hello -i 3 --no-start").ok();
    assert!(out.contains("state:     stopped"), "{out}");
    assert!(out.contains("instances: 0/0"), "{out}");
    assert!(fake.type_in("start hello").ok().contains("instances: 3/3"));
}

#[test]
fn json_is_one_object() {
    let fake = Fake::start();
    let out = fake.type_in("push hello -o me/hello -i 2 --json").ok();
    let app: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&app["name"], &app["running"]), (&"hello".into(), &2.into()));
}

#[test]
fn progress_is_told_while_instances_start() {
    let fake = Fake::start();
    fake.with(|cluster| cluster.holds = true);
    let mut child = gavel(fake.endpoint())
        .args(["push", "hello", "-o", "me/hello", "-i", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(told.any(|line| line == "hello: 0 of 2 running, 2 starting"));
    fake.with(|cluster| cluster.holds = false);
    assert!(told.any(|line| line == "hello: 2 of 2 running"));
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(out.contains("instances: 2/2"), "{out}");
}

#[test]
fn an_app_is_replaced_and_a_bad_image_does_not_cost_it() {
    let fake = Fake::start();
    fake.type_in("push hello -o me/hello").ok();
    let failed = fake.type_in("push hello -o me/nothing").failed();
    assert!(failed.contains("error: InvalidRequest: me/nothing: manifest unknown"), "{failed}");
    let mute = ImageMetadata { entrypoint: Vec::new(), ..image() };
    fake.with(|cluster| cluster.images.insert("me/mute".to_owned(), mute));
    let failed = fake.type_in("push hello -o me/mute").failed();
    assert!(failed.contains("me/mute has neither an entrypoint nor a command"), "{failed}");
    let bad = ImageMetadata { exposed_ports: (1..=65).collect(), ..image() };
    fake.with(|cluster| cluster.images.insert("me/ports".to_owned(), bad));
    let failed = fake.type_in("push hello -o me/ports").failed();
    assert!(failed.contains("error: InvalidRequest: Invalid field: ports"), "{failed}");
    assert!(fake.type_in("app hello").ok().contains("instances: 1/1"));

    let ran = fake.type_in("push hello -o me/hello -i 2");
    assert!(ran.err.contains("replacing hello\n"), "{ran:?}");
    assert!(ran.ok().contains("instances: 2/2"));
}

#[test]
fn without_the_feature_flag_nothing_is_changed() {
    let fake = Fake::start();
    fake.type_in("push hello -o me/hello").ok();
    fake.type_in("disable-feature-flag diego_docker").ok();
    fake.with(|cluster| cluster.asked.clear());
    let failed = fake.type_in("push hello -o me/hello").failed();
    assert!(
        failed.ends_with(
            "error: InvalidRequest: feature flag diego_docker is disabled; an operator can \
             enable it with: gavel enable-feature-flag diego_docker\n"
        ),
        "{failed}"
    );
    assert!(fake.with(|cluster| cluster.asked.is_empty()));
    assert!(!fake.with(|cluster| cluster.state.is_enabled(FeatureFlag::DiegoDocker)));
}

#[test]
fn no_room_is_told_with_what_would_help() {
    let fake = Fake::start();
    fake.with(|cluster| {
        let reason = "no cell has 900M of memory free".to_owned();
        let remedy = "add a cell, or push with less memory".to_owned();
        cluster.waiting = vec![(3, Waiting { reason, remedy })];
    });
    let failed = fake.type_in("push hello -o me/hello -m 900M -i 4 -t 300ms").failed();
    let told = failed.split_once("error: ").unwrap().1;
    expect![[r#"
        hello: not all instances run after 300ms; 3 of 4 run
          1 is waiting: no cell has 900M of memory free (add a cell, or push with less memory)
        hello stays desired; see more with: gavel app hello, gavel logs hello --recent
    "#]]
    .assert_eq(told);
    expect![[r#"
        name    instances   memory   image      routes
        hello   3/4         900M     me/hello   10.0.0.1:61001, 10.0.0.2:61002, 10.0.0.3:61003
    "#]]
    .assert_eq(&fake.type_in("apps").ok());
    let shown = fake.type_in("app hello").ok();
    let row = shown.lines().find(|line| line.starts_with("#3")).unwrap();
    assert!(row.contains("waiting"), "{row}");
    assert!(row.ends_with("add a cell, or push with less memory"), "{row}");
}

#[test]
fn a_crashing_app_is_given_up_at_once_with_its_reason() {
    let fake = Fake::start();
    fake.with(|cluster| cluster.crashing.insert("hello".into()));
    let ran: Ran = fake.type_in("push hello -o me/hello -i 2");
    let failed = ran.failed();
    let told = failed.split_once("error: ").unwrap().1;
    expect![[r#"
        hello: some instances have crashed; 0 of 2 run
          2 are crashed: APP/PROC/WEB: Exited with status 7
        hello stays desired; see more with: gavel app hello, gavel logs hello --recent
    "#]]
    .assert_eq(told);
    let shown = fake.type_in("app hello").ok();
    assert!(shown.contains("crashed"), "{shown}");
    assert!(shown.contains("Exited with status 7"), "{shown}");
}

#[test]
fn an_answer_lost_while_desiring_is_looked_up() {
    let fake = Fake::start();
    fake.with(|cluster| cluster.loses_answer = true);
    let ran = fake.type_in("push hello -o me/hello");
    assert!(ran.err.contains("looking whether the change has happened"), "{ran:?}");
    assert!(ran.ok().contains("instances: 1/1"));
    assert_eq!(fake.with(|cluster| cluster.asked.clone()), ["desire_lrp"]);
}

fn cf_router(fake: &Fake, app: &str) -> String {
    let lrp = fake.with(|cluster| cluster.state.desired_lrp(&app.into()).cloned().unwrap());
    lrp.routes.get("cf-router").cloned().unwrap_or_default()
}

#[test]
fn an_app_answers_under_the_clusters_domain_unless_told_otherwise() {
    let fake = Fake::start();
    fake.with(|cluster| {
        cluster.routing = Some(Routing { domain: "apps.example.com".to_owned(), port: 8080 });
    });
    let out = fake.type_in("push My_App -o me/hello").ok();
    assert!(out.contains("routes:    http://my-app.apps.example.com:8080\n"), "{out}");
    assert_eq!(
        cf_router(&fake, "My_App"),
        r#"[{"hostnames":["my-app.apps.example.com"],"port":8080}]"#
    );
    fake.type_in("push a -o me/hello -n other").ok();
    assert_eq!(cf_router(&fake, "a"), r#"[{"hostnames":["other.apps.example.com"],"port":8080}]"#);
    let line = "push a -o me/hello --route www.example.com --route www.example.com/adm=9090";
    let out = fake.type_in(line).ok();
    assert!(out.contains("http://www.example.com:8080/adm\n"), "{out}");
    let lrp = fake.with(|cluster| cluster.state.desired_lrp(&"a".into()).cloned().unwrap());
    assert_eq!(lrp.ports, [8080, 9090]);
    fake.type_in("push a -o me/hello --no-route").ok();
    assert_eq!(cf_router(&fake, "a"), "");
    let failed = fake.type_in("push a -o me/hello --route a.b:99").failed();
    assert!(failed.starts_with("2: ") && failed.contains("no port of its own"), "{failed}");
}

#[test]
fn a_manifest_says_what_the_command_line_does_not() {
    let fake = Fake::start();
    let dir = tempfile::tempdir().unwrap();
    let text = "applications:\n- name: web\n  docker: {image: me/hello}\n  instances: 2\n  \
                memory: 64M\n  env: {A: file, B: 1}\n  routes:\n  - route: web.example.com\n\
                - name: worker\n  docker: {image: me/hello}\n  no-route: true\n";
    std::fs::write(dir.path().join("manifest.yml"), text).unwrap();
    let here = |line: &str| {
        let words = line.split_whitespace();
        Ran::from(gavel(fake.endpoint()).args(words).current_dir(dir.path()).output().unwrap())
    };
    let out = here("push").ok();
    assert!(out.contains("name:      web") && out.contains("name:      worker"), "{out}");
    assert!(out.contains("instances: 2/2"), "{out}");
    assert_eq!(cf_router(&fake, "web"), r#"[{"hostnames":["web.example.com"],"port":8080}]"#);
    here("push web -m 128M -e A=typed").ok();
    let lrp = fake.with(|cluster| cluster.state.desired_lrp(&"web".into()).cloned().unwrap());
    let Some(Action::Run(run)) = &lrp.action else { panic!("there is one kind of action") };
    let value = |name| run.env.iter().find(|one| one.name == name).unwrap().value.as_str();
    assert_eq!((lrp.memory_mb, lrp.instances, value("A"), value("B")), (128, 2, "typed", "1"));
    let failed = here("push -i 2").failed();
    assert!(failed.starts_with("2: ") && failed.contains("has 2 apps"), "{failed}");
    assert!(here("push none").failed().contains("manifest.yml: it has no app none"));
    std::fs::write(dir.path().join("other.yml"), "applications:\n- name: a\n  stack: x\n").unwrap();
    let failed = here("push -f other.yml").failed();
    assert!(failed.contains("other.yml: ") && failed.contains("stack"), "{failed}");
    assert!(failed.contains("line 3"), "{failed}");
    assert!(fake.type_in("push a").failed().contains("there is no manifest.yml here"));
}
