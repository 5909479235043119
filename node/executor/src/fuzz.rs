//! What a fuzzer asks of the environment: see the container crate's `image::fuzz`.

use std::collections::BTreeMap;

use container::container::shim::fuzz::told;
use model::EnvironmentVariable;

use crate::environment::{of_client, of_image};

/// Variables with `0xff` between them: those that begin with `i` are the image's, the others,
/// without their first byte, the client's.
pub fn environment(bytes: &[u8]) {
    let (mut image, mut client) = (Vec::new(), Vec::new());
    for variable in bytes.split(|byte| *byte == 0xff) {
        let variable = String::from_utf8_lossy(variable);
        let mut letters = variable.chars();
        match letters.next() {
            Some('i') => image.push(letters.as_str().to_owned()),
            _ => {
                let (name, value) = letters.as_str().split_once('=').unwrap_or_default();
                let (name, value) = (name.to_owned(), value.to_owned());
                client.push(EnvironmentVariable { name, value });
            }
        }
    }
    let image = of_image(&image);
    let has_zero = image.iter().any(|(name, value)| name.contains('\0') || value.contains('\0'));
    let is_long = bytes.len() > 64 << 10;
    assert!(
        has_zero || is_long || told(image.clone()).is_some(),
        "an image alone does not keep its app from starting: {image:?}"
    );
    let mut given = image;
    given.extend(of_client(&client));
    // The last of each name.
    let expected: BTreeMap<String, String> = given.iter().cloned().collect();
    let Some(told) = told(given) else { return };
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in told {
        assert!(!name.is_empty(), "a variable without a name");
        assert!(!name.contains('='), "{name:?}");
        assert!(known.insert(name.clone(), value).is_none(), "{name:?} twice");
    }
    for (name, value) in expected {
        assert_eq!(known.get(&name), Some(&value), "{name:?}");
    }
}
