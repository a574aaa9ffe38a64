//! The flags of `fdpush cert`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::count::between;
use super::values::path;
use crate::gateway::runtime::clock;
use crate::gateway::tls::names::ServerName;
use crate::gateway::tls::self_signed::{OutputFiles, SelfSigned};

#[derive(PartialEq, Debug, Args)]
pub struct Cert {
    /// The names of the server, separated by commas: localhost, chat.example, *.chat.example, 127.0.0.1, ::1. May be
    /// given several times
    #[arg(id = "for", long = "for", value_name = "NAME", value_delimiter = ',', required = true)]
    pub names: Vec<ServerName>,

    /// Directory of the files. The files are named as by mkcert: localhost+1.pem and localhost+1-key.pem for two names
    #[arg(long, value_name = "DIR", value_parser = path, default_value = ".")]
    pub out: PathBuf,

    /// Name of the certificate file in --out. Default: a name as by mkcert
    #[arg(long, value_name = "FILE", value_parser = path)]
    pub cert_file: Option<PathBuf>,

    /// Name of the key file in --out. Default: a name as by mkcert
    #[arg(long, value_name = "FILE", value_parser = path)]
    pub key_file: Option<PathBuf>,

    /// Days for which the certificate is valid
    #[arg(long, value_name = "COUNT", default_value = "365", value_parser = between(1, 3650))]
    pub days: u32,

    /// Overwrite existing files
    #[arg(long)]
    pub force: bool,
}

impl Cert {
    /// Writes a certificate and its key. Returns a text for the user: the paths of both files, and a `fdpush serve`
    /// command that uses the files.
    ///
    /// # Errors
    /// Returns an error if a file exists already or cannot be written.
    pub fn write(&self) -> Result<String, String> {
        let mut names: Vec<ServerName> = Vec::new();
        for name in &self.names {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        // The paths in the output need no `./` at the start.
        let directory = if self.out == Path::new(".") { Path::new("") } else { &self.out };
        let mut files = OutputFiles::in_directory(directory, &names);
        let renamed = [(&self.cert_file, &mut files.certificate), (&self.key_file, &mut files.key)];
        for (name, file) in renamed {
            if let Some(name) = name {
                *file = directory.join(name);
            }
        }
        let pair = SelfSigned::new(&names, self.days, clock::unix_seconds())?;
        files.write(&pair, self.force)?;
        let list: Vec<String> = names.iter().map(ServerName::to_string).collect();
        let (certificate, key) = (files.certificate.display(), files.key.display());
        Ok(format!(
            "{certificate}: a self-signed certificate for {}, valid for {} days\n{key}: its private key\n\
             fdpush serve --listen tls:127.0.0.1:9443 --tls-cert {certificate} --tls-key {key}\n",
            list.join(", "),
            self.days
        ))
    }
}
