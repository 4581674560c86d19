//! The way of `object_store` to the network: kiln's own client, with its proxies, certificates and patience.
//!
//! What was answered last is kept, since the library's errors would show whole answers, and some of those name keys.

use crate::registry::{self, Client, WebFile, printable};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::try_unfold;
use http_body::Frame;
use http_body_util::StreamBody;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use reqwest::Url;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How much of an error's body is read, bytes.
const MOST: usize = 64 << 10;

/// Where machines of a cloud ask who they are: Amazon's, its containers', Google's. They are near, or not there at all.
const NEAR: [&str; 4] = ["169.254.169.254", "169.254.170.2", "169.254.170.23", "metadata.google.internal"];
const NEAR_PATIENCE: Duration = Duration::from_secs(2);

/// What was heard last that wasn't good.
#[derive(Debug, Clone)]
pub(super) enum Heard {
    /// A refusal.
    Answer {
        /// Who refused.
        host: String,
        /// The HTTP status.
        status: u16,
        /// Its name for the reason, and what it says about it; harmless to print.
        said: String,
        /// The region where the bucket is, where the answer says that.
        region: Option<String>,
    },
    /// Nothing.
    Silence(registry::Error),
    /// Nobody there to say who this machine is, or nobody who wants to.
    NoIdentity,
}

/// Makes clients that note what they hear.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    client: Client,
    heard: Arc<Mutex<Option<Heard>>>,
}

impl Connector {
    pub(super) fn new(client: Client) -> Self {
        Self { client, heard: Arc::default() }
    }

    pub(super) fn heard(&self) -> Option<Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, heard: Heard) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(heard);
    }

    /// An error of the connection in the library's terms, by which it decides whether to try again.
    fn failure(&self, error: registry::Error) -> HttpError {
        let kind = match &error {
            registry::Error::Unreachable { .. } => HttpErrorKind::Connect,
            registry::Error::Timeout { .. } => HttpErrorKind::Timeout,
            registry::Error::Broken { .. } => HttpErrorKind::Interrupted,
            _ => HttpErrorKind::Unknown,
        };
        self.note(Heard::Silence(error.clone()));
        HttpError::new(kind, error)
    }

    async fn send(&self, request: HttpRequest) -> Result<WebFile, HttpError> {
        let (parts, body) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string()).map_err(|e| HttpError::new(HttpErrorKind::Unknown, e))?;
        let near = url.host_str().is_some_and(is_near);
        let body = body.as_bytes().cloned().unwrap_or_default();
        let sending = self.client.exchange(parts.method, url, parts.headers, body);
        if !near {
            return sending.await.map_err(|e| self.failure(e));
        }
        let nobody = |e: Box<dyn std::error::Error + Send + Sync>| {
            self.note(Heard::NoIdentity);
            HttpError::new_boxed(HttpErrorKind::Unknown, e)
        };
        match tokio::time::timeout(NEAR_PATIENCE, sending).await {
            Ok(answer) => answer.map_err(|e| nobody(Box::new(e))),
            Err(e) => Err(nobody(Box::new(e))),
        }
    }

    /// Keeps what a refusal says, and gives it on.
    async fn refused(&self, mut answer: WebFile) -> Result<Bytes, HttpError> {
        let mut body = Vec::new();
        while body.len() < MOST {
            match answer.chunk().await.map_err(|e| self.failure(e))? {
                Some(chunk) => body.extend_from_slice(&chunk),
                None => break,
            }
        }
        let region = answer.header("x-amz-bucket-region").map(printable);
        let said = said(&String::from_utf8_lossy(&body));
        let (host, status) = (answer.host(), answer.status());
        self.note(match is_near(&host) {
            true => Heard::NoIdentity,
            false => Heard::Answer { host, status, said, region },
        });
        Ok(body.into())
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = self.send(request).await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = if (200..300).contains(&status) {
            let connector = self.clone();
            let frames = try_unfold((answer, connector), |(mut answer, connector)| async move {
                let chunk = answer.chunk().await.map_err(|e| connector.failure(e))?;
                Ok(chunk.map(|chunk| (Frame::data(chunk), (answer, connector))))
            });
            HttpResponseBody::new(StreamBody::new(frames))
        } else {
            self.refused(answer).await?.into()
        };
        let mut response = HttpResponse::new(body);
        *response.status_mut() = status.try_into().map_err(|e| HttpError::new(HttpErrorKind::Unknown, e))?;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

/// Whether a host tells a machine of a cloud who it is.
fn is_near(host: &str) -> bool {
    NEAR.contains(&host)
}

/// Code and message of an error in the XML that all three speak; nothing else of it, since the rest repeats the request.
fn said(body: &str) -> String {
    let of = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        let (text, _) = rest.split_once(&format!("</{name}>"))?;
        let text = printable(text.lines().next().unwrap_or_default());
        (!text.is_empty()).then_some(text)
    };
    [of("Code"), of("Message")].into_iter().flatten().collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_tells_a_machine_what_it_is() {
        assert!(is_near("169.254.169.254") && is_near("metadata.google.internal"));
        assert!(!is_near("169.254.169.254.evil.io") && !is_near("pot.s3.us-east-1.amazonaws.com"));
    }

    #[test]
    fn of_a_refusal_only_code_and_message_are_told() {
        let body = "<?xml?><Error><Code>SignatureDoesNotMatch</Code><Message>no\u{1b}[31m\nRequestId:1</Message>\
                    <AWSAccessKeyId>AKIAHUSH</AWSAccessKeyId><StringToSign>hush</StringToSign></Error>";
        assert_eq!(said(body), "SignatureDoesNotMatch: no[31m");
        assert_eq!(said("<Message>x"), "");
        assert_eq!(said("not found"), "");
    }
}
