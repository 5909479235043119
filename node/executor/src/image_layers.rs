//! Image layers: what is laid over a root file system, as cached dependencies and as downloads
//! (executor.md section 14).
//!
//! Deliberately absent: the `preloaded+layer` root file system of Diego's two-layer mode, which an
//! operator there may choose; every exclusive layer is a download here.

use model::Action;
use model::action::{DownloadAction, ManyActions};
use model::dependency::{CachedDependency, DigestAlgorithm, ImageLayer, LayerType};

/// What is mounted into a container before its recipe begins: shared layers, then what a client
/// has asked for itself.
#[must_use]
pub fn cached_dependencies(
    layers: &[ImageLayer],
    declared: &[CachedDependency],
) -> Vec<CachedDependency> {
    let shared = layers.iter().filter(|layer| layer.layer_type == LayerType::Shared);
    let dependency = |layer: &ImageLayer| {
        let algorithm = algorithm(layer.digest_algorithm);
        CachedDependency {
            name: layer.name.clone(),
            from: layer.url.clone(),
            to: layer.destination_path.clone(),
            cache_key: if layer.digest_value.is_empty() {
                layer.url.clone()
            } else {
                format!("{algorithm}:{}", layer.digest_value)
            },
            log_source: String::new(),
            checksum_algorithm: algorithm.to_owned(),
            checksum_value: layer.digest_value.clone(),
        }
    };
    shared.map(dependency).chain(declared.iter().cloned()).collect()
}

/// Exclusive layers are downloaded by this user, all at once, before the rest of the setup.
pub(crate) fn setup(layers: &[ImageLayer], user: &str, setup: Option<&Action>) -> Option<Action> {
    let exclusive = layers.iter().filter(|layer| layer.layer_type == LayerType::Exclusive);
    let download = |layer: &ImageLayer| {
        let algorithm = algorithm(layer.digest_algorithm);
        let download = DownloadAction {
            artifact: layer.name.clone(),
            from: layer.url.clone(),
            to: layer.destination_path.clone(),
            cache_key: format!("{algorithm}:{}", layer.digest_value),
            user: user.to_owned(),
            log_source: String::new(),
            checksum_algorithm: algorithm.to_owned(),
            checksum_value: layer.digest_value.clone(),
        };
        Some(Action::Download(download).into())
    };
    let actions: Vec<_> = exclusive.map(download).collect();
    if actions.is_empty() {
        return setup.cloned();
    }
    let downloads = Action::Parallel(ManyActions { actions, log_source: String::new() });
    Some(match setup {
        None => downloads,
        Some(setup) => {
            let actions = vec![Some(downloads.into()), Some(setup.clone().into())];
            Action::Serial(ManyActions { actions, log_source: String::new() })
        }
    })
}

fn algorithm(algorithm: DigestAlgorithm) -> &'static str {
    match algorithm {
        DigestAlgorithm::Invalid => "",
        DigestAlgorithm::Sha256 => "sha256",
        DigestAlgorithm::Sha512 => "sha512",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn layers() -> Vec<ImageLayer> {
        let layers = json!([
            {"name": "droplet", "url": "http://a/droplet", "destination_path": "/home/vcap",
             "layer_type": "EXCLUSIVE", "media_type": "TGZ", "digest_algorithm": "SHA256",
             "digest_value": "abc"},
            {"name": "lifecycle", "url": "http://a/lifecycle", "destination_path": "/tmp/lifecycle",
             "layer_type": "SHARED", "media_type": "TGZ"},
            {"url": "http://a/certs", "destination_path": "/certs", "layer_type": "SHARED",
             "media_type": "TAR", "digest_algorithm": "SHA512", "digest_value": "def"},
        ]);
        serde_json::from_value(layers).unwrap()
    }

    fn json<T: serde::Serialize>(value: T) -> Value {
        let mut value = serde_json::to_value(value).unwrap();
        drop_empty(&mut value);
        value
    }

    fn drop_empty(value: &mut Value) {
        match value {
            Value::Object(members) => {
                members.values_mut().for_each(drop_empty);
                members.retain(|_, member| *member != json!(""));
            }
            Value::Array(items) => items.iter_mut().for_each(drop_empty),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn shared_layers_come_before_declared_dependencies() {
        let declared = CachedDependency { name: "own".to_owned(), ..CachedDependency::default() };
        let expected = json!([
            {"name": "lifecycle", "from": "http://a/lifecycle", "to": "/tmp/lifecycle",
             "cache_key": "http://a/lifecycle"},
            {"from": "http://a/certs", "to": "/certs", "cache_key": "sha512:def",
             "checksum_algorithm": "sha512", "checksum_value": "def"},
            {"name": "own"},
        ]);
        assert_eq!(json(cached_dependencies(&layers(), &[declared])), expected);
    }

    #[test]
    fn exclusive_layers_are_downloaded_before_the_setup() {
        let downloads = json!({"parallel": {"actions": [{"download": {
            "artifact": "droplet", "from": "http://a/droplet", "to": "/home/vcap",
            "cache_key": "sha256:abc", "user": "vcap",
            "checksum_algorithm": "sha256", "checksum_value": "abc",
        }}]}});
        assert_eq!(json(setup(&layers(), "vcap", None)), downloads);
        let own: Action = serde_json::from_value(json!({"run": {"path": "/setup"}})).unwrap();
        let both = json!({"serial": {"actions": [downloads, json(&own)]}});
        assert_eq!(json(setup(&layers(), "vcap", Some(&own))), both);
        assert_eq!(setup(&layers()[1..], "vcap", Some(&own)), Some(own));
        assert_eq!(setup(&[], "vcap", None), None);
    }
}
