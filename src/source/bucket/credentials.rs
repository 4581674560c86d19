//! The stores as their providers' own tools would set them up: by the environment, files, and who this machine is.

use super::address::{ObjectUrl, Provider};
use super::profile;
use crate::sys::input;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::HttpConnector;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use reqwest::Url;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

/// Variables that the library knows by these names.
const AMAZON: [&str; 11] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_ENDPOINT_URL_STS",
    "AWS_REQUEST_PAYER",
];
const MICROSOFT: [&str; 7] = [
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_TENANT_ID",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_AUTHORITY_HOST",
];
/// Those that kiln gives a meaning itself.
const OWN: [&str; 12] = [
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "S3_ENDPOINT",
    "S3_FORCE_PATH_STYLE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "AWS_PROFILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "STORAGE_EMULATOR_HOST",
    "HOME",
];

/// What the environment says of stores.
#[derive(Clone)]
pub(super) struct Settings(Arc<BTreeMap<&'static str, String>>);

impl Settings {
    pub(super) fn new(env: &dyn Fn(&str) -> Option<String>) -> Self {
        let names = AMAZON.iter().chain(&MICROSOFT).chain(&OWN);
        let set = |name: &&'static str| Some((*name, env(name).filter(|v| !v.is_empty())?));
        Self(Arc::new(names.filter_map(set).collect()))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn path(&self, name: &str, below_home: &str) -> Option<PathBuf> {
        let at_home = || Some(PathBuf::from(self.get("HOME")?).join(below_home));
        self.get(name).map(PathBuf::from).or_else(at_home)
    }

    /// The address of whoever speaks Amazon's protocol, where it isn't Amazon.
    pub(super) fn s3_endpoint(&self) -> Option<(&'static str, &str)> {
        ["S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].into_iter().find_map(|n| Some((n, self.get(n)?)))
    }
}

/// The variables that name files of credentials, and where those are below the home folder without them.
const FILES: [(&str, Option<&str>); 6] = [
    ("AWS_SHARED_CREDENTIALS_FILE", Some(".aws/credentials")),
    ("AWS_CONFIG_FILE", Some(".aws/config")),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", None),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", None),
    ("GOOGLE_APPLICATION_CREDENTIALS", Some(".config/gcloud/application_default_credentials.json")),
    ("AZURE_FEDERATED_TOKEN_FILE", None),
];

/// The files in which credentials for stores would be looked for, whether or not they are there.
pub fn files(env: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    files_of(&Settings::new(env)).into_iter().map(|(_, path)| path).collect()
}

/// The same, each with its variable.
fn files_of(settings: &Settings) -> Vec<(&'static str, PathBuf)> {
    let path = |name: &str, below: Option<&str>| match below {
        Some(below) => settings.path(name, below),
        None => settings.get(name).map(PathBuf::from),
    };
    FILES.iter().filter_map(|(name, below)| Some((*name, path(name, *below)?))).collect()
}

/// Refuses what the library would wait for or read without end.
fn check_files(settings: &Settings) -> Result<(), String> {
    let is_no_file = |e| matches!(e, ErrorKind::InvalidInput | ErrorKind::IsADirectory);
    let refused = files_of(settings).into_iter().find_map(|(name, path)| {
        let error = input::open_given(&path).err().filter(|e| is_no_file(e.kind()))?;
        Some(format!("${name}: {}: {error}", path.display()))
    });
    refused.map_or(Ok(()), Err)
}

/// Whether there is anything to ask for an object of Azure's with.
pub(super) fn has_azure(env: &dyn Fn(&str) -> Option<String>) -> bool {
    let settings = Settings::new(env);
    MICROSOFT.iter().take(5).any(|name| settings.get(name).is_some())
}

/// A store, or what of the settings is wrong, without their values.
pub(super) fn store<C: HttpConnector + Clone>(
    url: &ObjectUrl,
    settings: &Settings,
    connector: &C,
) -> Result<Arc<dyn ObjectStore>, String> {
    check_files(settings)?;
    match url.provider {
        Provider::S3 => amazon(url, settings, connector),
        Provider::Google => google(url, settings, connector),
        Provider::Azure => azure(url, settings, connector),
    }
}

fn amazon<C: HttpConnector + Clone>(
    url: &ObjectUrl,
    settings: &Settings,
    connector: &C,
) -> Result<Arc<dyn ObjectStore>, String> {
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&url.bucket)
        .with_http_connector(connector.clone())
        .with_retry(patience());
    for name in AMAZON {
        let key = AmazonS3ConfigKey::from_str(&name.to_ascii_lowercase());
        if let (Ok(key), Some(value)) = (key, settings.get(name)) {
            builder = builder.with_config(key, value);
        }
    }
    let given = |name: &str| settings.get(name).is_some();
    let files =
        profile::read(settings.get("AWS_PROFILE").unwrap_or("default"), |name, below| settings.path(name, below))?;
    if !given("AWS_ACCESS_KEY_ID") && !given("AWS_SECRET_ACCESS_KEY") && !given("AWS_WEB_IDENTITY_TOKEN_FILE") {
        for (name, key) in [
            ("aws_access_key_id", AmazonS3ConfigKey::AccessKeyId),
            ("aws_secret_access_key", AmazonS3ConfigKey::SecretAccessKey),
            ("aws_session_token", AmazonS3ConfigKey::Token),
        ] {
            builder = files.get(name).into_iter().fold(builder, |b, value| b.with_config(key, value));
        }
    }
    let region = ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter().find_map(|n| settings.get(n));
    let region = region.or_else(|| files.get("region").map(String::as_str)).unwrap_or("us-east-1");
    let (endpoint, http) = s3_address(&url.bucket, region, settings)?;
    let options = ClientOptions::new().with_allow_http(http);
    let builder = builder.with_region(region).with_endpoint(endpoint).with_client_options(options);
    // What the library takes for "the endpoint has the bucket's name in it".
    let store = builder.with_virtual_hosted_style_request(true).build();
    store.map(|s| Arc::new(s) as _).map_err(|e| unusable(&e))
}

/// Where a bucket is, and whether that is without TLS: as a host of its own, as Amazon wants it, or as a path, where
/// that is asked for or a host can't be.
fn s3_address(bucket: &str, region: &str, settings: &Settings) -> Result<(String, bool), String> {
    let amazon = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let amazon = format!("https://s3.{region}.{amazon}");
    let (name, text) = settings.s3_endpoint().unwrap_or(("", &amazon));
    let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let bad = || format!("${name} is no web address");
    let url = Url::parse(&full).map_err(|_| bad())?;
    let host = url.host().filter(|_| matches!(url.scheme(), "http" | "https")).ok_or_else(bad)?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err(format!("${name} has more than a host and a path"));
    }
    let named = matches!(&host, url::Host::Domain(name) if *name != "localhost");
    let forced = settings.get("S3_FORCE_PATH_STYLE").is_some_and(|v| crate::plan::go_bool(v).unwrap_or(false));
    let path = url.path().trim_end_matches('/');
    let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
    let (scheme, http) = (url.scheme(), url.scheme() == "http");
    Ok(match !named || forced || bucket.contains(['.', '_']) || !path.is_empty() {
        true => (format!("{scheme}://{host}{port}{path}/{bucket}"), http),
        false => (format!("{scheme}://{bucket}.{host}{port}"), http),
    })
}

fn google<C: HttpConnector + Clone>(
    url: &ObjectUrl,
    settings: &Settings,
    connector: &C,
) -> Result<Arc<dyn ObjectStore>, String> {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&url.bucket)
        .with_http_connector(connector.clone())
        .with_retry(patience());
    if let Some(emulator) = settings.get("STORAGE_EMULATOR_HOST") {
        // As Google's own libraries take it: no scheme is plain HTTP, and nobody asks who is there.
        let base = if emulator.contains("://") { emulator.to_owned() } else { format!("http://{emulator}") };
        builder = builder
            .with_client_options(ClientOptions::new().with_allow_http(true))
            .with_config(GoogleConfigKey::BaseUrl, base.trim_end_matches('/'))
            .with_skip_signature(true);
    }
    if let Some(path) =
        settings.path("GOOGLE_APPLICATION_CREDENTIALS", ".config/gcloud/application_default_credentials.json")
        && (settings.get("GOOGLE_APPLICATION_CREDENTIALS").is_some() || path.exists())
    {
        if let Err(e) = std::fs::metadata(&path) {
            return Err(format!("$GOOGLE_APPLICATION_CREDENTIALS: {}: {e}", path.display()));
        }
        builder = builder.with_application_credentials(path.display().to_string());
    }
    builder.build().map(|s| Arc::new(s) as _).map_err(|e| unusable(&e))
}

fn azure<C: HttpConnector + Clone>(
    url: &ObjectUrl,
    settings: &Settings,
    connector: &C,
) -> Result<Arc<dyn ObjectStore>, String> {
    let mut builder = MicrosoftAzureBuilder::new()
        .with_account(url.account())
        .with_container_name(&url.bucket)
        .with_http_connector(connector.clone())
        .with_retry(patience());
    if let Some(host) = &url.host {
        builder = builder.with_endpoint(format!("https://{host}"));
    }
    for name in MICROSOFT {
        // One of these names the library has in another form.
        let known = name.replace("AZURE_STORAGE_ACCESS_KEY", "azure_storage_account_key").to_ascii_lowercase();
        if let (Ok(key), Some(value)) = (AzureConfigKey::from_str(&known), settings.get(name)) {
            builder = builder.with_config(key, value);
        }
    }
    builder.build().map(|s| Arc::new(s) as _).map_err(|e| unusable(&e))
}

/// What the library doesn't like, in its words; the values themselves aren't in them.
fn unusable(error: &object_store::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    format!("the credentials can't be used: {}", crate::registry::printable(&innermost.to_string()))
}

/// Where nobody answers, nobody will for long: four more tries, in some seconds.
fn patience() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(5),
        ..BackoffConfig::default()
    };
    RetryConfig { backoff, max_retries: 4, retry_timeout: Duration::from_secs(60) }
}
