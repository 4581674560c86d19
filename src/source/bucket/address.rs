//! What an address of an object says.

/// Who keeps an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Amazon, or who speaks its protocol.
    S3,
    /// Google.
    Google,
    /// Microsoft.
    Azure,
}

/// The object of an address that names none, as Kaniko has it.
const DEFAULT_KEY: &str = "context.tar.gz";

/// The ends of Azure's hosts: everybody's, China's, the American government's, Germany's.
const AZURE: [&str; 4] =
    [".blob.core.windows.net", ".blob.core.chinacloudapi.cn", ".blob.core.usgovcloudapi.net", ".blob.core.cloudapi.de"];

/// `s3://BUCKET/KEY`, `gs://BUCKET/KEY`, `https://ACCOUNT.blob.core.windows.net/CONTAINER/KEY`: Kaniko's forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectUrl {
    /// Who keeps it.
    pub provider: Provider,
    /// The bucket, or Azure's container.
    pub bucket: String,
    /// Its name in the bucket.
    pub key: String,
    /// Azure's host.
    pub host: Option<String>,
}

impl ObjectUrl {
    /// Reads `text`; `None` where it is no object's address at all, an error where it is one with something missing.
    pub fn parse(text: &str) -> Option<Result<Self, String>> {
        let (scheme, rest) = text.split_once("://")?;
        match scheme {
            "s3" => Some(Self::in_bucket(Provider::S3, rest)),
            "gs" => Some(Self::in_bucket(Provider::Google, rest)),
            "https" => Self::in_azure(rest),
            _ => None,
        }
    }

    fn in_bucket(provider: Provider, rest: &str) -> Result<Self, String> {
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || !bucket.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
            return Err("want a bucket's name behind the two slashes".into());
        }
        let key = if key.is_empty() { DEFAULT_KEY } else { key };
        Ok(Self { provider, bucket: bucket.into(), key: key.into(), host: None })
    }

    /// An address with a query has its permission with it, and is a web server's like any other.
    fn in_azure(rest: &str) -> Option<Result<Self, String>> {
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let account = AZURE.iter().find_map(|end| host.strip_suffix(end))?;
        if account.is_empty() || account.contains(['.', '@', ':']) || path.contains(['?', '#']) {
            return None;
        }
        let Some((bucket, key)) = path.split_once('/').filter(|(b, k)| !b.is_empty() && !k.is_empty()) else {
            return Some(Err("want https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH".into()));
        };
        let provider = Provider::Azure;
        let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned();
        Some(Ok(Self { provider, bucket: bucket.into(), key, host: Some(host.to_owned()) }))
    }

    /// Azure's account.
    pub(super) fn account(&self) -> &str {
        self.host.as_deref().and_then(|host| host.split('.').next()).unwrap_or_default()
    }
}

impl std::fmt::Display for ObjectUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { provider, bucket, key, host } = self;
        match provider {
            Provider::S3 => write!(f, "s3://{bucket}/{key}"),
            Provider::Google => write!(f, "gs://{bucket}/{key}"),
            Provider::Azure => write!(f, "https://{}/{bucket}/{key}", host.as_deref().unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_by_their_address() {
        for (text, provider, bucket, key) in [
            ("s3://b/a/c.tar.gz", Provider::S3, "b", "a/c.tar.gz"),
            ("s3://my.b-1_x", Provider::S3, "my.b-1_x", "context.tar.gz"),
            ("gs://b/", Provider::Google, "b", "context.tar.gz"),
            ("gs://b/a b+c%20.tar", Provider::Google, "b", "a b+c%20.tar"),
            ("https://me.blob.core.windows.net/c/d/a%20b.tgz", Provider::Azure, "c", "d/a b.tgz"),
            ("https://me.blob.core.chinacloudapi.cn/c/x", Provider::Azure, "c", "x"),
        ] {
            let url = ObjectUrl::parse(text).unwrap().unwrap();
            assert_eq!((url.provider, url.bucket.as_str(), url.key.as_str()), (provider, bucket, key), "{text}");
        }
        for text in ["s3://", "s3:///k", "gs://b?x/k", "s3://u:p@b/k", "https://me.blob.core.windows.net/c"] {
            assert!(ObjectUrl::parse(text).unwrap().is_err(), "{text}");
        }
        for text in [
            "b/k",
            "https://h/x",
            "http://me.blob.core.windows.net/c/x",
            "https://me.blob.core.windows.net.evil.io/c/x",
            "https://evil.io/.blob.core.windows.net/c/x",
            "https://me@x.blob.core.windows.net/c/x",
            "https://me.blob.core.windows.net/c/x?sig=hush",
        ] {
            assert_eq!(ObjectUrl::parse(text), None, "{text}");
        }
        assert_eq!(ObjectUrl::parse("s3://b/k").unwrap().unwrap().to_string(), "s3://b/k");
    }
}
