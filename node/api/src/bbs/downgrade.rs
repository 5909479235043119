//! Image layers for clients of revisions that do not know them (bbs-wire.md section 2): shared ones
//! become cached dependencies, exclusive ones downloads before everything else.

use super::messages::{self as bbs, image_layer};

/// An LRP whose exclusive layers are downloaded in its setup.
#[must_use]
pub fn desired_lrp(mut lrp: bbs::DesiredLrp) -> bbs::DesiredLrp {
    let layers = std::mem::take(&mut lrp.image_layers);
    #[expect(deprecated, reason = "it is who unpacks them")]
    let downloads = downloads(&layers, &lrp.legacy_download_user);
    lrp.cached_dependencies.splice(0..0, shared(&layers));
    lrp.setup = before(downloads, lrp.setup);
    lrp
}

/// A task whose exclusive layers are downloaded before its action.
#[must_use]
pub fn task(mut task: bbs::Task) -> bbs::Task {
    if let Some(definition) = &mut task.task_definition {
        let layers = std::mem::take(&mut definition.image_layers);
        #[expect(deprecated, reason = "it is who unpacks them")]
        let downloads = downloads(&layers, &definition.legacy_download_user);
        definition.cached_dependencies.splice(0..0, shared(&layers));
        definition.action = before(downloads, definition.action.take());
    }
    task
}

fn before(downloads: Option<bbs::Action>, then: Option<bbs::Action>) -> Option<bbs::Action> {
    let (Some(downloads), Some(then)) = (&downloads, &then) else { return downloads.or(then) };
    let actions = vec![downloads.clone(), then.clone()];
    let serial = bbs::SerialAction { actions, log_source: String::new() };
    Some(bbs::Action { serial_action: Some(serial), ..bbs::Action::default() })
}

fn of_type(
    layers: &[bbs::ImageLayer],
    kind: image_layer::Type,
) -> impl Iterator<Item = &bbs::ImageLayer> {
    layers.iter().filter(move |layer| layer.layer_type() == kind)
}

fn shared(layers: &[bbs::ImageLayer]) -> Vec<bbs::CachedDependency> {
    let dependency = |layer: &bbs::ImageLayer| bbs::CachedDependency {
        name: layer.name.clone(),
        from: layer.url.clone(),
        to: layer.destination_path.clone(),
        cache_key: cache_key(layer),
        log_source: String::new(),
        checksum_algorithm: algorithm(layer).to_owned(),
        checksum_value: layer.digest_value.clone(),
    };
    of_type(layers, image_layer::Type::Shared).map(dependency).collect()
}

/// All at once; nothing where no layer is exclusive.
fn downloads(layers: &[bbs::ImageLayer], user: &str) -> Option<bbs::Action> {
    let download = |layer: &bbs::ImageLayer| {
        let download = bbs::DownloadAction {
            artifact: layer.name.clone(),
            from: layer.url.clone(),
            to: layer.destination_path.clone(),
            cache_key: cache_key(layer),
            log_source: String::new(),
            user: user.to_owned(),
            checksum_algorithm: algorithm(layer).to_owned(),
            checksum_value: layer.digest_value.clone(),
        };
        bbs::Action { download_action: Some(download), ..bbs::Action::default() }
    };
    let actions: Vec<_> = of_type(layers, image_layer::Type::Exclusive).map(download).collect();
    let parallel = bbs::ParallelAction { actions, log_source: String::new() };
    (!parallel.actions.is_empty())
        .then(|| bbs::Action { parallel_action: Some(parallel), ..bbs::Action::default() })
}

fn cache_key(layer: &bbs::ImageLayer) -> String {
    if layer.digest_value.is_empty() {
        layer.url.clone()
    } else {
        format!("{}:{}", algorithm(layer), layer.digest_value)
    }
}

fn algorithm(layer: &bbs::ImageLayer) -> &'static str {
    match layer.digest_algorithm() {
        image_layer::DigestAlgorithm::Invalid => "",
        image_layer::DigestAlgorithm::Sha256 => "sha256",
        image_layer::DigestAlgorithm::Sha512 => "sha512",
    }
}
