//! Bad input and want of room: a named reason, and nothing left behind.

use container::container::{ContainerState, Error, Process, Runtime, Shim};

use super::world::{World, args, id, sh};

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_start_names_the_reason_and_another_may_follow() {
    let world = World::open().await;
    world.runtime().create(world.spec("start")).await.unwrap();
    let start = async |process| world.runtime().start(&id("start"), process).await;
    let reason = async |process| start(process).await.unwrap_err().to_string();
    let prefix = "start container start: ";
    assert_eq!(
        reason(args(&["/no/such"])).await,
        format!("{prefix}execute \"/no/such\": No such file or directory (os error 2)")
    );
    assert_eq!(
        reason(args(&["no-such"])).await,
        format!("{prefix}execute \"no-such\": No such file or directory (os error 2)")
    );
    assert_eq!(
        reason(args(&["/etc/passwd"])).await,
        format!("{prefix}execute \"/etc/passwd\": Permission denied (os error 13)")
    );
    assert_eq!(
        reason(Process { user: "nobody-here".into(), ..sh("") }).await,
        format!("{prefix}look up the user: user \"nobody-here\" is not in the image's /etc/passwd")
    );
    assert_eq!(
        reason(Process { working_dir: Some("/etc/passwd".into()), ..sh("") }).await,
        format!("{prefix}enter /etc/passwd: Not a directory (os error 20)")
    );
    assert_eq!(world.runtime().get(&id("start")).unwrap().state, ContainerState::Created);
    start(sh("exit 0")).await.unwrap();
    let error = start(sh("exit 0")).await.unwrap_err();
    // Whether its end was noticed already is chance.
    let is_refused = matches!(error, Error::ProcessExists { .. } | Error::WrongState { .. });
    assert!(is_refused, "{error}");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_layer_is_named_and_nothing_is_left() {
    let world = World::open().await;
    let mut spec = world.spec("bad");
    spec.layers.push("/no/such/layer".into());
    let error = world.runtime().create(spec.clone()).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "create container bad: open layer /no/such/layer: No such file or directory (os error 2)"
    );
    assert_eq!(world.traces(), world.network_traces());

    // procfs is no layer for overlayfs.
    spec.layers[1] = "/proc".into();
    let error = world.runtime().create(spec.clone()).await.unwrap_err().to_string();
    assert!(error.contains("mount the layers (overlayfs): "), "{error}");
    assert_eq!(world.traces(), world.network_traces());

    for (layers, reason) in [
        (vec![], "it has no layers"),
        (vec!["relative".into()], "layer relative is not an absolute path"),
        (vec!["/x".into(); 128], "128 layers, 127 at most"),
    ] {
        spec.layers = layers;
        let error = world.runtime().create(spec.clone()).await.unwrap_err().to_string();
        assert_eq!(error, format!("invalid container bad: {reason}"));
    }
    // The name is free again.
    world.run("bad", "true").await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_layers_as_docker_has_are_stacked() {
    let world = World::open().await;
    let mut spec = world.spec("deep");
    for number in 1..127 {
        let layer = world.path().join(format!("layer-{number}"));
        std::fs::create_dir(&layer).unwrap();
        std::fs::write(layer.join("top"), number.to_string()).unwrap();
        spec.layers.push(layer);
    }
    world.run_with(spec, sh("cat /top; echo")).await;
    world.exit("deep").await;
    assert_eq!(world.log("deep", container::container::LogStream::Stdout).await, "126\n");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_name_is_refused() {
    let world = World::open().await;
    let (one, two) = tokio::join!(
        world.runtime().create(world.spec("twin")),
        world.runtime().create(world.spec("twin"))
    );
    let errors: Vec<_> = [one, two].into_iter().filter_map(Result::err).collect();
    assert_eq!(errors.len(), 1);
    assert!(matches!(&errors[0], Error::AlreadyExists(twin) if *twin == id("twin")));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_port_range_is_named() {
    let world = World::open_with(|config| {
        let first = *config.host_ports.start();
        config.host_ports = first..=first + 1;
    })
    .await;
    let spec = |name: &str, ports| {
        let mut spec = world.spec(name);
        spec.ports = ports;
        spec
    };
    world.runtime().create(spec("one", vec![80])).await.unwrap();
    let error = world.runtime().create(spec("two", vec![80, 81])).await.unwrap_err().to_string();
    let first = world.config.host_ports.start();
    assert_eq!(error, format!("no free host port in {first}-{}: 2 wanted, 1 free", first + 1));
    world.runtime().create(spec("two", vec![80])).await.unwrap();
    world.destroy("one").await;
    world.runtime().create(spec("three", vec![80])).await.unwrap();
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_subnet_or_id_space_is_named() {
    let world = World::open_with(|config| {
        config.subnet = config.subnet.to_string().replace("/24", "/30").parse().unwrap();
    })
    .await;
    world.runtime().create(world.spec("one")).await.unwrap();
    let error = world.runtime().create(world.spec("two")).await.unwrap_err();
    assert!(matches!(error, Error::AddressesExhausted { .. }));
    assert_eq!(error.to_string(), format!("no free container address in {}", world.config.subnet));
    world.destroy("one").await;
    world.runtime().create(world.spec("two")).await.unwrap();
    world.close().await;

    let world = World::open_with(|config| config.id_ranges = 1).await;
    world.runtime().create(world.spec("one")).await.unwrap();
    let error = world.runtime().create(world.spec("two")).await.unwrap_err();
    assert!(matches!(error, Error::IdsExhausted { ranges: 1, .. }), "{error}");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_is_none_is_named_and_nothing_is_left() {
    for program in ["/bin/true", "/no/such/program"] {
        let world = World::open_with(|config| {
            config.shim = Shim { program: program.into(), args: vec![] };
        })
        .await;
        let error = world.runtime().create(world.spec("shimless")).await.unwrap_err().to_string();
        assert!(error.contains("shim"), "{error}");
        assert_eq!(world.traces(), world.network_traces());
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn verbs_on_nobody_say_so() {
    let world = World::open().await;
    let nobody = id("nobody");
    let runtime = world.runtime();
    assert!(matches!(runtime.start(&nobody, sh("")).await, Err(Error::NotFound(_))));
    assert!(matches!(runtime.get(&nobody), Err(Error::NotFound(_))));
    assert!(matches!(runtime.stats(&nobody), Err(Error::NotFound(_))));
    // But what is not there is destroyed already.
    runtime.destroy(&nobody).await.unwrap();
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_has_one_runtime() {
    let world = World::open().await;
    let error = Runtime::open(world.config.clone()).await.unwrap_err();
    assert!(matches!(error, Error::InUse(_)), "{error}");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_stays_while_containers_need_it() {
    let world = World::open().await;
    world.runtime().create(world.spec("user")).await.unwrap();
    let error = world.runtime().close_network().await.unwrap_err();
    assert!(matches!(error, Error::NetworkInUse { containers: 1, .. }), "{error}");
    world.close().await;
}
