//! Load made by `truenow bench`, a process of its own: what it costs is not mixed up with the proof.

use std::{
    ffi::OsStr,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::{Failure, http::Http, server::Site};

/// A load generator at work. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Load(Child);

impl Load {
    /// Starts `truenow bench` with these arguments against the server of a site; `wrapper` runs it.
    ///
    /// # Errors
    /// The system does not start it.
    pub(crate) fn start(site: &Site, wrapper: &[String], arguments: &[impl AsRef<OsStr>]) -> Result<Self, Failure> {
        let mut command = match wrapper.split_first() {
            Some((program, words)) => {
                let mut command = Command::new(program);
                command.args(words).arg(site.bin());
                command
            }
            None => Command::new(site.bin()),
        };
        command.args(["bench", "--json", "--port-offset", &site.offset().to_string()]).args(arguments);
        Ok(Self(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?))
    }

    /// Whether it is still at work.
    ///
    /// # Errors
    /// It failed.
    pub(crate) fn runs(&mut self) -> Result<bool, Failure> {
        match self.0.try_wait()? {
            None => Ok(true),
            Some(status) if status.success() => Ok(false),
            Some(status) => Err(format!("truenow bench ended with {status}").into()),
        }
    }

    /// Waits for its report.
    ///
    /// # Errors
    /// It failed, or reported nothing.
    pub(crate) async fn report(mut self) -> Result<Value, Failure> {
        let mut out = self.0.stdout.take().ok_or("its output was taken already")?;
        let read = move || std::io::read_to_string(&mut out);
        let text = tokio::task::spawn_blocking(read).await??;
        let status = self.0.wait()?;
        serde_json::from_str(&text)
            .map_err(|error| format!("truenow bench ended with {status}: {error}: {text}").into())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Killing what has ended already fails, which is fine.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Events that the gateway of a site has accepted since it was started.
///
/// # Errors
/// It does not say.
pub(crate) async fn accepted(site: &Site, http: &Http) -> Result<u64, Failure> {
    let reply = http.get(&format!("{}/metrics", site.url(8088))).await.ok_or("no answer from the gateway")?;
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    let of = |line: &str| {
        let line = line.strip_prefix("truenow_ingest_events_total{")?;
        line.contains(r#"result="accepted""#).then(|| line.rsplit(' ').next()?.parse::<f64>().ok()).flatten()
    };
    Ok(text.lines().filter_map(of).sum::<f64>() as u64)
}
