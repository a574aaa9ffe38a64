//! Returns the declarations of all settings, as clap arguments.

use std::sync::OnceLock;

use clap::Arg;

use super::cli::Serve;

/// Returns the declarations of all settings.
pub fn declarations() -> impl Iterator<Item = &'static Arg> {
    static SERVE: OnceLock<clap::Command> = OnceLock::new();
    let serve = SERVE.get_or_init(|| <Serve as clap::Args>::augment_args(clap::Command::new("serve")));
    serve.get_arguments()
}

/// Returns the declaration of the setting whose key is `key`.
pub fn declaration(key: &str) -> Option<&'static Arg> {
    declarations().find(|arg| arg.get_id() == key)
}

/// Returns whether the value of a setting is secret.
pub fn is_secret(arg: &Arg) -> bool {
    arg.is_hide_env_values_set() && !is_url(arg)
}

/// Returns whether the value of a setting is a URL. The user and the password of a URL are secret.
pub fn is_url(arg: &Arg) -> bool {
    arg.get_value_names().and_then(|names| names.first()).is_some_and(|name| name == "URL")
}
