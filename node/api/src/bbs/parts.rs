//! What LRPs and tasks have in common.

use std::collections::BTreeMap;

use model::action::{EnvironmentVariable, MountedFile};
use model::dependency::{CachedDependency, DigestAlgorithm, ImageLayer, LayerMediaType, LayerType};
use model::desired_lrp::{CertificateProperties, LogRateLimit, Network};
use model::egress::{EgressRule, IcmpInfo, PortRange};
use model::metric_tag::{DynamicValue, MetricTagValue};
use model::volume::{DedicatedDevice, SharedDevice, VolumeMount};

use super::messages::{self as bbs, image_layer, metric_tag_value};

pub(super) fn env_from(env: Vec<bbs::EnvironmentVariable>) -> Vec<EnvironmentVariable> {
    let variable =
        |it: bbs::EnvironmentVariable| EnvironmentVariable { name: it.name, value: it.value };
    env.into_iter().map(variable).collect()
}

pub(super) fn env(env: &[EnvironmentVariable]) -> Vec<bbs::EnvironmentVariable> {
    let variable = |it: &EnvironmentVariable| bbs::EnvironmentVariable {
        name: it.name.clone(),
        value: it.value.clone(),
    };
    env.iter().map(variable).collect()
}

pub(super) fn files_from(files: Vec<bbs::File>) -> Vec<MountedFile> {
    files.into_iter().map(|it| MountedFile { path: it.path, content: it.content }).collect()
}

pub(super) fn files(files: &[MountedFile]) -> Vec<bbs::File> {
    let file = |it: &MountedFile| bbs::File { path: it.path.clone(), content: it.content.clone() };
    files.iter().map(file).collect()
}

pub(super) fn egress_rules_from(rules: Vec<bbs::SecurityGroupRule>) -> Vec<EgressRule> {
    let rule = |it: bbs::SecurityGroupRule| EgressRule {
        protocol: it.protocol,
        destinations: it.destinations,
        ports: it.ports,
        port_range: it.port_range.map(|range| PortRange { start: range.start, end: range.end }),
        icmp_info: it.icmp_info.map(|icmp| IcmpInfo { kind: icmp.r#type, code: icmp.code }),
        log: it.log,
        annotations: it.annotations,
    };
    rules.into_iter().map(rule).collect()
}

pub(super) fn egress_rules(rules: &[EgressRule]) -> Vec<bbs::SecurityGroupRule> {
    let rule = |it: &EgressRule| bbs::SecurityGroupRule {
        protocol: it.protocol.clone(),
        destinations: it.destinations.clone(),
        ports: it.ports.clone(),
        port_range: it
            .port_range
            .map(|range| bbs::PortRange { start: range.start, end: range.end }),
        icmp_info: it.icmp_info.map(|icmp| bbs::IcmpInfo { r#type: icmp.kind, code: icmp.code }),
        log: it.log,
        annotations: it.annotations.clone(),
    };
    rules.iter().map(rule).collect()
}

pub(super) fn dependencies_from(dependencies: Vec<bbs::CachedDependency>) -> Vec<CachedDependency> {
    let dependency = |it: bbs::CachedDependency| CachedDependency {
        name: it.name,
        from: it.from,
        to: it.to,
        cache_key: it.cache_key,
        log_source: it.log_source,
        checksum_algorithm: it.checksum_algorithm,
        checksum_value: it.checksum_value,
    };
    dependencies.into_iter().map(dependency).collect()
}

pub(super) fn dependencies(dependencies: &[CachedDependency]) -> Vec<bbs::CachedDependency> {
    let dependency = |it: &CachedDependency| bbs::CachedDependency {
        name: it.name.clone(),
        from: it.from.clone(),
        to: it.to.clone(),
        cache_key: it.cache_key.clone(),
        log_source: it.log_source.clone(),
        checksum_algorithm: it.checksum_algorithm.clone(),
        checksum_value: it.checksum_value.clone(),
    };
    dependencies.iter().map(dependency).collect()
}

/// What an enumeration does not know becomes its first, invalid, value, which validation refuses.
pub(super) fn layers_from(layers: Vec<bbs::ImageLayer>) -> Vec<ImageLayer> {
    let layer = |it: bbs::ImageLayer| ImageLayer {
        layer_type: match it.layer_type() {
            image_layer::Type::LayerTypeInvalid => LayerType::LayerTypeInvalid,
            image_layer::Type::Shared => LayerType::Shared,
            image_layer::Type::Exclusive => LayerType::Exclusive,
        },
        media_type: match it.media_type() {
            image_layer::MediaType::Invalid => LayerMediaType::MediaTypeInvalid,
            image_layer::MediaType::Tgz => LayerMediaType::Tgz,
            image_layer::MediaType::Tar => LayerMediaType::Tar,
            image_layer::MediaType::Zip => LayerMediaType::Zip,
        },
        digest_algorithm: match it.digest_algorithm() {
            image_layer::DigestAlgorithm::Invalid => DigestAlgorithm::Invalid,
            image_layer::DigestAlgorithm::Sha256 => DigestAlgorithm::Sha256,
            image_layer::DigestAlgorithm::Sha512 => DigestAlgorithm::Sha512,
        },
        name: it.name,
        url: it.url,
        destination_path: it.destination_path,
        digest_value: it.digest_value,
    };
    layers.into_iter().map(layer).collect()
}

pub(super) fn layers(layers: &[ImageLayer]) -> Vec<bbs::ImageLayer> {
    let layer = |it: &ImageLayer| {
        let layer_type = match it.layer_type {
            LayerType::LayerTypeInvalid => image_layer::Type::LayerTypeInvalid,
            LayerType::Shared => image_layer::Type::Shared,
            LayerType::Exclusive => image_layer::Type::Exclusive,
        };
        let media_type = match it.media_type {
            LayerMediaType::MediaTypeInvalid => image_layer::MediaType::Invalid,
            LayerMediaType::Tgz => image_layer::MediaType::Tgz,
            LayerMediaType::Tar => image_layer::MediaType::Tar,
            LayerMediaType::Zip => image_layer::MediaType::Zip,
        };
        let digest_algorithm = match it.digest_algorithm {
            DigestAlgorithm::Invalid => image_layer::DigestAlgorithm::Invalid,
            DigestAlgorithm::Sha256 => image_layer::DigestAlgorithm::Sha256,
            DigestAlgorithm::Sha512 => image_layer::DigestAlgorithm::Sha512,
        };
        bbs::ImageLayer {
            name: it.name.clone(),
            url: it.url.clone(),
            destination_path: it.destination_path.clone(),
            layer_type: layer_type.into(),
            media_type: media_type.into(),
            digest_algorithm: digest_algorithm.into(),
            digest_value: it.digest_value.clone(),
        }
    };
    layers.iter().map(layer).collect()
}

pub(super) fn mounts_from(mounts: Vec<bbs::VolumeMount>) -> Vec<VolumeMount> {
    let mount = |it: bbs::VolumeMount| VolumeMount {
        driver: it.driver,
        container_dir: it.container_dir,
        mode: it.mode,
        shared: it.shared.map(|device| SharedDevice {
            volume_id: device.volume_id,
            mount_config: device.mount_config,
        }),
        dedicated: it.dedicated.map(|device| DedicatedDevice {
            mounter_id: device.mounter_id,
            mount_config: device.mount_config,
            device_config: device.device_config,
        }),
    };
    mounts.into_iter().map(mount).collect()
}

pub(super) fn mounts(mounts: &[VolumeMount]) -> Vec<bbs::VolumeMount> {
    let mount = |it: &VolumeMount| bbs::VolumeMount {
        driver: it.driver.clone(),
        container_dir: it.container_dir.clone(),
        mode: it.mode.clone(),
        shared: it.shared.as_ref().map(|device| bbs::SharedDevice {
            volume_id: device.volume_id.clone(),
            mount_config: device.mount_config.clone(),
        }),
        dedicated: it.dedicated.as_ref().map(|device| bbs::DedicatedDevice {
            mounter_id: device.mounter_id.clone(),
            mount_config: device.mount_config.clone(),
            device_config: device.device_config.clone(),
        }),
    };
    mounts.iter().map(mount).collect()
}

pub(super) fn metric_tags_from(
    tags: BTreeMap<String, bbs::MetricTagValue>,
) -> BTreeMap<String, MetricTagValue> {
    let tag = |(name, it): (String, bbs::MetricTagValue)| {
        let dynamic = match it.dynamic() {
            metric_tag_value::DynamicValue::Invalid => DynamicValue::Invalid,
            metric_tag_value::DynamicValue::Index => DynamicValue::Index,
            metric_tag_value::DynamicValue::InstanceGuid => DynamicValue::InstanceGuid,
        };
        (name, MetricTagValue { fixed: it.r#static, dynamic })
    };
    tags.into_iter().map(tag).collect()
}

pub(super) fn metric_tags(
    tags: &BTreeMap<String, MetricTagValue>,
) -> BTreeMap<String, bbs::MetricTagValue> {
    let tag = |(name, it): (&String, &MetricTagValue)| {
        let dynamic = match it.dynamic {
            DynamicValue::Invalid => metric_tag_value::DynamicValue::Invalid,
            DynamicValue::Index => metric_tag_value::DynamicValue::Index,
            DynamicValue::InstanceGuid => metric_tag_value::DynamicValue::InstanceGuid,
        };
        let value = bbs::MetricTagValue { r#static: it.fixed.clone(), dynamic: dynamic.into() };
        (name.clone(), value)
    };
    tags.iter().map(tag).collect()
}

/// Where only one of the guid and the tag of its name is set, Diego shows it as both.
pub(super) fn mirror(metrics_guid: &mut String, tags: &mut BTreeMap<String, bbs::MetricTagValue>) {
    const SOURCE_ID: &str = "source_id";
    match tags.get(SOURCE_ID) {
        Some(tag) if metrics_guid.is_empty() => metrics_guid.clone_from(&tag.r#static),
        None if !metrics_guid.is_empty() => {
            let tag = bbs::MetricTagValue { r#static: metrics_guid.clone(), dynamic: 0 };
            tags.insert(SOURCE_ID.to_owned(), tag);
        }
        Some(_) | None => {}
    }
}

pub(super) fn network_from(network: Option<bbs::Network>) -> Option<Network> {
    network.map(|it| Network { properties: it.properties })
}

pub(super) fn network(network: Option<&Network>) -> Option<bbs::Network> {
    network.map(|it| bbs::Network { properties: it.properties.clone() })
}

pub(super) fn certificate_from(
    properties: Option<bbs::CertificateProperties>,
) -> Option<CertificateProperties> {
    properties.map(|it| CertificateProperties { organizational_unit: it.organizational_unit })
}

pub(super) fn certificate(
    properties: Option<&CertificateProperties>,
) -> Option<bbs::CertificateProperties> {
    properties.map(|it| bbs::CertificateProperties {
        organizational_unit: it.organizational_unit.clone(),
    })
}

pub(super) fn log_rate_from(limit: Option<bbs::LogRateLimit>) -> Option<LogRateLimit> {
    limit.map(|it| LogRateLimit { bytes_per_second: it.bytes_per_second })
}

pub(super) fn log_rate(limit: Option<LogRateLimit>) -> Option<bbs::LogRateLimit> {
    limit.map(|it| bbs::LogRateLimit { bytes_per_second: it.bytes_per_second })
}
