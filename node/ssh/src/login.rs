//! Who somebody says he is: `diego:GUID/INDEX`.

use std::fmt;

use model::ProcessGuid;

use crate::limits::LOGIN_BYTES_MAX;

/// Which instance is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub process_guid: ProcessGuid,
    pub index: u32,
}

/// It is no such name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLogin {
    /// Of Cloud Foundry's users, whom a UAA and a Cloud Controller know.
    #[error("cf: users are not served here; log in as diego:GUID/INDEX")]
    CloudFoundry,
    #[error("the user is not diego:GUID/INDEX")]
    Other,
}

impl Login {
    /// # Errors
    ///
    /// [`NoLogin`]: it is another's name.
    pub fn parse(user: &str) -> Result<Self, NoLogin> {
        if user.starts_with("cf:") {
            return Err(NoLogin::CloudFoundry);
        }
        let fits = |user: &&str| user.len() <= LOGIN_BYTES_MAX;
        let parts = Some(user).filter(fits).and_then(|user| user.strip_prefix("diego:"));
        let Some((guid, index)) = parts.and_then(|parts| parts.rsplit_once('/')) else {
            return Err(NoLogin::Other);
        };
        let is_number = index.bytes().all(|byte| byte.is_ascii_digit());
        match index.parse() {
            Ok(index) if is_number && !guid.is_empty() => {
                Ok(Self { process_guid: guid.into(), index })
            }
            _ => Err(NoLogin::Other),
        }
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.process_guid, self.index)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_login_names_an_instance() {
        let login = Login::parse("diego:app-guid_1.x/12").unwrap();
        assert_eq!((login.process_guid.as_str(), login.index), ("app-guid_1.x", 12));
        assert_eq!(login.to_string(), "app-guid_1.x/12");
        assert_eq!(Login::parse("cf:guid/0"), Err(NoLogin::CloudFoundry));
        let long = format!("diego:{}/0", "a".repeat(LOGIN_BYTES_MAX));
        for user in [
            "",
            "root",
            "diego:",
            "diego:a",
            "diego:/0",
            "diego:a/",
            "diego:a/+1",
            "diego:a/-1",
            "diego:a/4294967296",
            "Diego:a/0",
            " diego:a/0",
            &long,
        ] {
            assert_eq!(Login::parse(user), Err(NoLogin::Other), "{user:?}");
        }
    }

    proptest! {
        #[test]
        fn no_name_is_too_odd(user: String) {
            let _ = Login::parse(&user);
            let _ = Login::parse(&format!("diego:{user}"));
        }
    }
}
