//! What an image says about the process to run on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::image::{Digest, Error, manifest};
use crate::limits::{IMAGE_LAYERS_MAX, IMAGE_PORTS_MAX, IMAGE_VOLUMES_MAX};

/// What an image says about the process to run on it (OCI image specification, "Image
/// Configuration"; Docker writes the same). Absent texts and lists are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// First words of the command; a user's own arguments do not replace them.
    pub entrypoint: Vec<String>,
    /// Default arguments, or the command itself when there is no entrypoint.
    pub cmd: Vec<String>,
    /// `NAME=value`, in the image's order.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group`, `uid:gid` or empty for root; looked up inside the image.
    pub user: String,
    /// Where the process starts; empty for `/`.
    pub working_dir: String,
    /// TCP ports, lowest first: Diego routes to the first.
    pub exposed_ports: Vec<u16>,
    /// UDP ports, lowest first: told apart because an image that exposes only these is refused
    /// by Cloud Controller.
    pub exposed_udp_ports: Vec<u16>,
    /// Free text of the image's maker.
    pub labels: BTreeMap<String, String>,
    /// Directories that the image wants to be its own volumes.
    pub volumes: BTreeSet<String>,
    /// The signal that asks the process to end; empty for SIGTERM.
    pub stop_signal: String,
    /// How the image says to check the process, if it says.
    pub healthcheck: Option<Healthcheck>,
}

/// An image's HEALTHCHECK (a Docker extension, kept in its config).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthcheck {
    /// What to run in the container; exit status 0 is healthy.
    pub test: HealthcheckTest,
    /// Between two checks; `None` for the runtime's default.
    pub interval: Option<Duration>,
    /// For one check.
    pub timeout: Option<Duration>,
    /// In which failures do not count.
    pub start_period: Option<Duration>,
    /// Failures in a row that make the container unhealthy.
    pub retries: Option<u32>,
}

/// The command of a [`Healthcheck`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthcheckTest {
    /// `NONE`: a check inherited from a base image is switched off.
    Off,
    /// `CMD`: a program and its arguments.
    Exec(Vec<String>),
    /// `CMD-SHELL`: a line for the image's `/bin/sh -c`.
    Shell(String),
}

/// A config as fetched: what to run, and what the layers unpack to.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) image: ImageConfig,
    pub(crate) os: String,
    pub(crate) architecture: String,
    /// Digests of the uncompressed tars, lowest layer first.
    pub(crate) diff_ids: Vec<Digest>,
}

impl Config {
    /// `os/architecture`, where the config says so.
    fn platform(&self) -> Option<String> {
        let known = !self.os.is_empty() && !self.architecture.is_empty();
        known.then(|| format!("{}/{}", self.os, self.architecture))
    }

    /// # Errors
    /// [`Error::WrongPlatform`], where the config names another than this machine's.
    pub(crate) fn check_platform(&self, image: impl fmt::Display) -> Result<(), Error> {
        let wanted = manifest::this_platform();
        match self.platform() {
            Some(offered) if offered != wanted => Err(Error::WrongPlatform {
                image: image.to_string(),
                wanted,
                offered: vec![offered],
            }),
            _ => Ok(()),
        }
    }

    /// # Errors
    /// A sentence that says what is wrong with the bytes.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let file: File = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let run = file.config.unwrap_or_default();
        let diff_ids = file.rootfs.unwrap_or_default().diff_ids.unwrap_or_default();
        if diff_ids.len() > IMAGE_LAYERS_MAX {
            return Err(format!("more than {IMAGE_LAYERS_MAX} layers"));
        }
        let diff_ids = diff_ids
            .iter()
            .map(|id| id.parse().map_err(|e| format!("diff id {id:?}: {e}")))
            .collect::<Result<_, String>>()?;
        let volumes = run.volumes.unwrap_or_default();
        if volumes.len() > IMAGE_VOLUMES_MAX {
            return Err(format!("more than {IMAGE_VOLUMES_MAX} volumes"));
        }
        let (exposed_ports, exposed_udp_ports) = ports(&run.exposed_ports.unwrap_or_default())?;
        let image = ImageConfig {
            entrypoint: run.entrypoint.unwrap_or_default(),
            cmd: run.cmd.unwrap_or_default(),
            env: run.env.unwrap_or_default(),
            user: run.user.unwrap_or_default(),
            working_dir: run.working_dir.unwrap_or_default(),
            exposed_ports,
            exposed_udp_ports,
            labels: run.labels.unwrap_or_default(),
            volumes: volumes.into_keys().collect(),
            stop_signal: run.stop_signal.unwrap_or_default(),
            healthcheck: run.healthcheck.and_then(healthcheck),
        };
        Ok(Self {
            image,
            os: file.os.unwrap_or_default(),
            architecture: file.architecture.unwrap_or_default(),
            diff_ids,
        })
    }
}

/// Sorts `N`, `N/tcp` and `N/udp` into TCP and UDP ports, lowest first. Other protocols are left
/// out; what is no port is an error, as in Diego's staging.
fn ports(
    exposed: &BTreeMap<String, serde::de::IgnoredAny>,
) -> Result<(Vec<u16>, Vec<u16>), String> {
    if exposed.len() > IMAGE_PORTS_MAX {
        return Err(format!("more than {IMAGE_PORTS_MAX} exposed ports"));
    }
    let (mut tcp, mut udp) = (BTreeSet::new(), BTreeSet::new());
    for key in exposed.keys() {
        let (number, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
        let port = number.parse::<u16>().map_err(|_| format!("{key:?} is not a port to expose"))?;
        match protocol.to_ascii_lowercase().as_str() {
            "tcp" => tcp.insert(port),
            "udp" => udp.insert(port),
            _ => false,
        };
    }
    Ok((tcp.into_iter().collect(), udp.into_iter().collect()))
}

/// `None` where the image inherits or the form is unknown: an unknown check is no check.
fn healthcheck(raw: RawHealthcheck) -> Option<Healthcheck> {
    let mut words = raw.test.unwrap_or_default().into_iter();
    let test = match words.next()?.as_str() {
        "NONE" => HealthcheckTest::Off,
        "CMD" => HealthcheckTest::Exec(words.collect()),
        "CMD-SHELL" => HealthcheckTest::Shell(words.next()?),
        _ => return None,
    };
    // Docker writes 0 for "not set", and nanoseconds otherwise.
    let time = |nanos: Option<i64>| {
        nanos.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0).map(Duration::from_nanos)
    };
    Some(Healthcheck {
        test,
        interval: time(raw.interval),
        timeout: time(raw.timeout),
        start_period: time(raw.start_period),
        retries: raw.retries.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0),
    })
}

// The JSON. Go writes `null` for what is empty, so every field is an Option. oci-client's own
// type is not used: it has no Healthcheck, and refuses configs whose `created` is no date.

#[derive(Deserialize)]
struct File {
    os: Option<String>,
    architecture: Option<String>,
    config: Option<Run>,
    rootfs: Option<Rootfs>,
}

#[derive(Default, Deserialize)]
struct Rootfs {
    diff_ids: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Run {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    labels: Option<BTreeMap<String, String>>,
    volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    stop_signal: Option<String>,
    healthcheck: Option<RawHealthcheck>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawHealthcheck {
    test: Option<Vec<String>>,
    interval: Option<i64>,
    timeout: Option<i64>,
    start_period: Option<i64>,
    retries: Option<i64>,
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(json: &str, expected: Expect) {
        let text = match Config::parse(json.as_bytes()) {
            Ok(config) => format!("{:?}", config.image),
            Err(reason) => reason,
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn a_full_config_is_read() {
        let config = Config::parse(
            br#"{"os":"linux","architecture":"amd64","created":"not a date",
                "config":{"Entrypoint":["/app","-v"],"Cmd":["serve"],"Env":["A=1","B=2"],
                  "User":"1000:1000","WorkingDir":"/srv","Labels":{"k":"v"},
                  "ExposedPorts":{"9090/tcp":{},"53/udp":{},"8080":{},"7/sctp":{}},
                  "Volumes":{"/data":{}},"StopSignal":"SIGQUIT",
                  "Healthcheck":{"Test":["CMD-SHELL","curl -f localhost"],
                    "Interval":5000000000,"Timeout":0,"Retries":3}},
                "rootfs":{"type":"layers","diff_ids":[]}}"#,
        )
        .unwrap();
        assert_eq!((config.os.as_str(), config.architecture.as_str()), ("linux", "amd64"));
        let image = config.image;
        assert_eq!(image.entrypoint, ["/app", "-v"]);
        assert_eq!(image.cmd, ["serve"]);
        assert_eq!(image.env, ["A=1", "B=2"]);
        assert_eq!(image.exposed_ports, [8080, 9090]);
        assert_eq!(image.exposed_udp_ports, [53]);
        assert_eq!(image.stop_signal, "SIGQUIT");
        assert_eq!(image.volumes.iter().collect::<Vec<_>>(), ["/data"]);
        let check = image.healthcheck.unwrap();
        assert_eq!(check.test, HealthcheckTest::Shell("curl -f localhost".to_owned()));
        assert_eq!((check.interval, check.timeout), (Some(Duration::from_secs(5)), None));
        assert_eq!(check.retries, Some(3));
    }

    #[test]
    fn what_go_leaves_null_is_empty() {
        let nothing = format!("{:?}", ImageConfig::default());
        let null = r#"{"config":{"Cmd":null,"Env":null,"ExposedPorts":null,"Healthcheck":null,
            "Labels":null},"rootfs":{"diff_ids":null}}"#;
        for json in ["{}", r#"{"config":null}"#, null] {
            assert_eq!(format!("{:?}", Config::parse(json.as_bytes()).unwrap().image), nothing);
        }
    }

    #[test]
    fn rubbish_is_named() {
        let volumes: Vec<String> = (0..129).map(|n| format!("\"/{n}\":{{}}")).collect();
        let many = format!(r#"{{"config":{{"Volumes":{{{}}}}}}}"#, volumes.join(","));
        check(&many, expect!["more than 128 volumes"]);
        check("<html>", expect!["expected value at line 1 column 1"]);
        check(
            r#"{"config":{"ExposedPorts":{"70000/tcp":{}}}}"#,
            expect![[r#""70000/tcp" is not a port to expose"#]],
        );
        check(
            r#"{"rootfs":{"diff_ids":["sha256:zz"]}}"#,
            expect![[
                r#"diff id "sha256:zz": a digest is sha256: and 64 lower-case hexadecimal digits"#
            ]],
        );
    }
}
