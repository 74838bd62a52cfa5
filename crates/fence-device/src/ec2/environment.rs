//! The environment of the program, and the check of AWS's shared files.

use std::path::{Path, PathBuf};

use fence_spool::{FileError, TrustedFile};
use nix::unistd::geteuid;

/// The variables that the watcher passes on: those for AWS's chain of credentials, certificates and
/// proxies.
pub(super) fn environment() -> Vec<(String, String)> {
    let ours = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut env: Vec<(String, String)> = ours.filter(|(name, _)| is_passed_on(name)).collect();
    // A service has no HOME unless its unit sets it; AWS looks for the shared files there.
    if geteuid().is_root() && !env.iter().any(|(name, _)| name == "HOME") {
        env.push(("HOME".to_owned(), "/root".to_owned()));
    }
    env
}

fn is_passed_on(name: &str) -> bool {
    name.starts_with("AWS_") || PASSED_ON.contains(&name)
}

/// Why AWS's shared files are refused. They contain the identity and keys, and may name programs to
/// run.
pub(super) fn shared_files_problem(env: &[(String, String)]) -> Option<String> {
    let variable = |wanted: &str| {
        let (_, value) = env.iter().find(|(name, _)| name == wanted)?;
        (!value.is_empty()).then(|| PathBuf::from(value))
    };
    let at = |name: &str, usual: &str| {
        variable(name).or_else(|| Some(variable("HOME")?.join(".aws").join(usual)))
    };
    let config = at("AWS_CONFIG_FILE", "config").and_then(|path| file_problem(&path, false));
    let keys = || at("AWS_SHARED_CREDENTIALS_FILE", "credentials");
    config.or_else(|| keys().and_then(|path| file_problem(&path, true)))
}

fn file_problem(path: &Path, is_secret: bool) -> Option<String> {
    let shown = path.display();
    match TrustedFile::find(path) {
        Err(FileError::Missing) => None,
        Err(error) => Some(format!("AWS's file '{shown}' is refused: {error}")),
        Ok(file) if is_secret && file.is_readable_by_others() => {
            Some(format!("others can read the keys in '{shown}': run `chmod 0600 '{shown}'`"))
        }
        Ok(_) => None,
    }
}

/// The variables to pass on, besides all that start with `AWS_`.
const PASSED_ON: [&str; 7] =
    ["HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"];

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn env(variables: &[(&str, &Path)]) -> Vec<(String, String)> {
        let text = |(name, path): &(&str, &Path)| ((*name).to_owned(), path.display().to_string());
        variables.iter().map(text).collect()
    }

    #[test]
    fn shared_files_are_used_only_when_nobody_else_can_write_to_them_or_read_the_keys() {
        let unique = format!("fence-ec2-{}", std::process::id());
        let home = std::env::temp_dir().join(unique);
        let file = |name: &str, mode: u32| {
            let path = home.join(name);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            path
        };
        fs::create_dir_all(home.join(".aws")).unwrap();
        let at_home = env(&[("HOME", &home)]);

        assert_eq!(shared_files_problem(&[]), None);
        assert_eq!(shared_files_problem(&at_home), None);
        file(".aws/config", 0o644);
        file(".aws/credentials", 0o600);
        assert_eq!(shared_files_problem(&at_home), None);

        file(".aws/config", 0o664);
        let problem = shared_files_problem(&at_home).unwrap();
        assert!(problem.contains(".aws/config' is refused: others can write"), "{problem}");
        file(".aws/config", 0o644);
        file(".aws/credentials", 0o640);
        let problem = shared_files_problem(&at_home).unwrap();
        assert!(problem.contains("others can read the keys in '"), "{problem}");

        let (config, keys) = (file("config", 0o600), file("keys", 0o644));
        let elsewhere = [("HOME", home.as_path()), ("AWS_SHARED_CREDENTIALS_FILE", &keys)];
        assert!(shared_files_problem(&env(&elsewhere)).unwrap().contains("/keys'"));
        let both =
            [("AWS_CONFIG_FILE", config.as_path()), ("AWS_SHARED_CREDENTIALS_FILE", &config)];
        assert_eq!(shared_files_problem(&env(&both)), None);
        fs::remove_dir_all(&home).unwrap();
    }

    #[test]
    fn of_the_environment_only_what_aws_needs_is_passed_on() {
        for (name, expected) in [
            ("AWS_PROFILE", true),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", true),
            ("HOME", true),
            ("https_proxy", true),
            // The metadata service is asked directly.
            ("http_proxy", false),
            ("LD_PRELOAD", false),
            ("BMC_PASSWORD", false),
        ] {
            assert_eq!(is_passed_on(name), expected, "{name}");
        }
    }
}
