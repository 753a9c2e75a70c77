//! What a program says about itself: logs on standard error and metrics for Prometheus.
//!
//! Logs are text for people or one JSON object a line for machines; both show the spans around
//! an event, so that the id of a request is in every line about it.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::settings::{Setting, Settings};

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For a person.
    Text,
    /// One JSON object a line.
    Json,
}

impl Setting for LogFormat {
    const EXPECTED: &'static str = "text or json";

    fn parse(text: &str) -> Option<LogFormat> {
        match text {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        }
    }
}

/// Which events are logged, such as `info` or `warn,jingwei=debug`; checked when it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl Setting for LogFilter {
    const EXPECTED: &'static str =
        "a level (error, warn, info, debug, trace), or a list like warn,jingwei=debug";

    fn parse(text: &str) -> Option<LogFilter> {
        EnvFilter::builder().parse(text).ok()?;
        Some(LogFilter(text.to_owned()))
    }
}

impl FromStr for LogFilter {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<LogFilter, &'static str> {
        LogFilter::parse(text).ok_or(LogFilter::EXPECTED)
    }
}

/// How to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Text or JSON.
    pub format: LogFormat,
    /// Which events.
    pub filter: LogFilter,
}

impl Default for LogSettings {
    /// Text, and what an operator wants to know.
    fn default() -> LogSettings {
        LogSettings {
            format: LogFormat::Text,
            filter: LogFilter("info".to_owned()),
        }
    }
}

impl LogSettings {
    /// Reads `log.format` (default text) and `log.filter` (default `info`).
    pub fn read(settings: &mut Settings) -> LogSettings {
        LogSettings {
            format: settings.get("log.format", LogFormat::Text),
            filter: settings.get("log.filter", LogFilter("info".to_owned())),
        }
    }
}

/// Something else in this process logs already.
#[derive(Debug, thiserror::Error)]
#[error("logging is set up already in this process: {0}")]
pub struct TelemetryError(Box<dyn std::error::Error + Send + Sync>);

/// Starts logging to standard error, for the whole process; call it once, from `main`.
pub fn init(settings: &LogSettings) -> Result<(), TelemetryError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&settings.filter.0))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match settings.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init(),
    }
    .map_err(TelemetryError)?;
    log_panics();
    Ok(())
}

/// Has a panic logged like everything else, so that it reaches whoever reads the logs even where
/// it ends the process at once.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let place = place.unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("a panic without words");
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(place, thread, %backtrace, "a defect in this program: {message}");
        metrics::counter!("jingwei_panics_total").increment(1);
    }));
}

/// The process's metrics; the first call installs the recorder, later ones share it, since one
/// process may host many nodes. `None` if a recorder of somebody else's is installed.
pub fn metrics() -> Option<&'static Metrics> {
    static METRICS: OnceLock<Option<Metrics>> = OnceLock::new();
    let install = || {
        PrometheusBuilder::new()
            .install_recorder()
            .ok()
            .map(Metrics)
    };
    METRICS.get_or_init(install).as_ref()
}

/// The figures counted so far, for a `/metrics` route.
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// The metrics in the text format of Prometheus 0.0.4.
    pub fn render(&self) -> String {
        // Histograms gather their samples until somebody sorts them in: here, at each scrape.
        self.0.run_upkeep();
        self.0.render()
    }

    /// Serves `/metrics` on a port of its own until `shutdown`.
    pub async fn serve(&'static self, address: SocketAddr, shutdown: CancellationToken) {
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%address, %error, "metrics are not served"),
        };
        let render = axum::routing::get(move || async move { self.render() });
        let router = axum::Router::new().route("/metrics", render);
        let served = axum::serve(listener, router)
            .with_graceful_shutdown(async move { shutdown.cancelled().await });
        if let Err(error) = served.await {
            tracing::error!(%error, "metrics are no longer served");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn filters_and_formats_are_checked() {
        for good in ["info", "warn,jingwei=debug", "jingwei::query=trace"] {
            assert!(LogFilter::parse(good).is_some(), "{good}");
        }
        assert!(LogFilter::parse("jingwei=loud").is_none());
        assert_eq!(LogFormat::parse("json"), Some(LogFormat::Json));
        assert_eq!(LogFormat::parse("JSON"), None);
    }

    #[test]
    fn a_panic_is_logged_with_its_place() {
        #[derive(Clone, Default)]
        struct Lines(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_writer(move || writer.clone())
            .finish();
        // Of the whole process, so other tests that panic while this one runs are logged, too.
        let before = std::panic::take_hook();
        log_panics();
        let ended = tracing::subscriber::with_default(subscriber, || {
            std::panic::catch_unwind(|| panic!("seven is {}", 8))
        });
        std::panic::set_hook(before);
        assert!(ended.is_err());
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(
            text.contains("seven is 8") && text.contains("telemetry.rs"),
            "{text}"
        );
    }

    #[test]
    fn metrics_are_counted_once_for_the_process() {
        let first = metrics().unwrap();
        metrics::counter!("jingwei_test_total").increment(2);
        assert!(first.render().contains("jingwei_test_total 2"));
        assert!(std::ptr::eq(first, metrics().unwrap()));
    }
}
