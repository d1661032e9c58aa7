//! The environ's variables of a TLS connection, and `gunicorn.socket` as far as applications ask it about TLS.

use std::sync::Arc;

use pyo3::exceptions::PyAttributeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use crate::pool::{ClientCertificate, TlsInfo, openssl_date};
use crate::tls::DistinguishedName;

/// Set what `info` says of the request's connection.
///
/// # Errors
/// `MemoryError`.
pub(super) fn set_tls(environ: &Bound<'_, PyDict>, info: &Arc<TlsInfo>) -> PyResult<()> {
    let py = environ.py();
    environ.set_item(intern!(py, "wsgi.url_scheme"), intern!(py, "https"))?;
    environ.set_item(intern!(py, "HTTPS"), intern!(py, "on"))?;
    environ.set_item(intern!(py, "SSL_PROTOCOL"), info.protocol)?;
    environ.set_item(intern!(py, "SSL_CIPHER"), info.cipher)?;
    for (name, value) in &info.variables {
        environ.set_item(name, value)?;
    }
    let socket = ClientSocket { info: info.clone() };
    environ.set_item(intern!(py, "gunicorn.socket"), Bound::new(py, socket)?)
}

/// Answers what Python's `ssl.SSLSocket` would. The socket itself is the server's.
#[pyclass(frozen, module = "ferricorn", name = "ClientSocket")]
#[derive(Debug)]
struct ClientSocket {
    info: Arc<TlsInfo>,
}

#[pymethods]
impl ClientSocket {
    /// The client's certificate: as `ssl.SSLSocket.getpeercert`, `None` without one.
    #[pyo3(signature = (binary_form = false))]
    fn getpeercert<'py>(
        &self,
        py: Python<'py>,
        binary_form: bool,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        match &self.info.client {
            None => Ok(None),
            Some(client) if binary_form => Ok(Some(PyBytes::new(py, &client.der).into_any())),
            Some(client) => Ok(Some(certificate(py, client)?.into_any())),
        }
    }

    /// Name, version and bits of the cipher.
    fn cipher(&self) -> (&'static str, &'static str, u16) {
        let info = &self.info;
        (info.cipher, info.protocol, info.cipher_bits())
    }

    fn version(&self) -> &'static str {
        self.info.protocol
    }

    fn selected_alpn_protocol(&self) -> Option<&str> {
        self.info.alpn.as_deref()
    }

    fn __getattr__(&self, name: &str) -> PyResult<()> {
        Err(PyAttributeError::new_err(format!(
            "'gunicorn.socket' has no {name:?}: the server reads and writes the TLS connection; \
             there are getpeercert, cipher, version and selected_alpn_protocol"
        )))
    }
}

/// The dictionary that `ssl.SSLSocket.getpeercert` makes.
fn certificate<'py>(py: Python<'py>, client: &ClientCertificate) -> PyResult<Bound<'py, PyDict>> {
    let certificate = PyDict::new(py);
    let Some(parsed) = &client.parsed else {
        return Ok(certificate);
    };
    certificate.set_item("subject", name(py, &parsed.subject)?)?;
    certificate.set_item("issuer", name(py, &parsed.issuer)?)?;
    certificate.set_item("version", parsed.version)?;
    certificate.set_item("serialNumber", &parsed.serial_number)?;
    certificate.set_item("notBefore", openssl_date(parsed.not_before))?;
    certificate.set_item("notAfter", openssl_date(parsed.not_after))?;
    if !parsed.alternative_names.is_empty() {
        let names = PyList::new(py, &parsed.alternative_names)?.to_tuple();
        certificate.set_item("subjectAltName", names)?;
    }
    Ok(certificate)
}

/// A tuple of relative names, each a tuple of pairs.
fn name<'py>(py: Python<'py>, name: &DistinguishedName) -> PyResult<Bound<'py, PyTuple>> {
    let relative = name.0.iter().map(|attributes| {
        let pairs = attributes
            .iter()
            .map(|attribute| (attribute.long_name.as_str(), attribute.value.as_str()));
        PyTuple::new(py, pairs.collect::<Vec<_>>())
    });
    PyTuple::new(py, relative.collect::<PyResult<Vec<_>>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::with_interpreter;
    use crate::tls::PeerCertificate;

    #[test]
    fn a_client_certificate_is_shown_as_the_ssl_module_shows_it() {
        let mut parameters = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, "client");
        let key = rcgen::KeyPair::generate().unwrap();
        let signed = parameters.self_signed(&key).unwrap();
        let client = ClientCertificate {
            der: signed.der().to_vec(),
            parsed: PeerCertificate::parse(signed.der()),
        };
        let names = ("TLSv1.3", "TLS_AES_256_GCM_SHA384");
        let info = Arc::new(TlsInfo::new(names, Some(b"http/1.1"), true, Some(client)));
        with_interpreter(|py| {
            let environ = PyDict::new(py);
            set_tls(&environ, &info).unwrap();
            let shown = py
                .eval(
                    c"(e['HTTPS'], e['SSL_CLIENT_S_DN_CN'], s.cipher(), s.version(), \
                       s.selected_alpn_protocol(), s.getpeercert()['subject'], \
                       s.getpeercert()['subjectAltName'], len(s.getpeercert(True)) > 99, \
                       hasattr(s, 'send'))",
                    None,
                    Some(&{
                        let locals = PyDict::new(py);
                        locals.set_item("e", &environ).unwrap();
                        let socket = environ.get_item("gunicorn.socket").unwrap();
                        locals.set_item("s", socket).unwrap();
                        locals
                    }),
                )
                .unwrap();
            assert_eq!(
                shown.to_string(),
                "('on', 'client', ('TLS_AES_256_GCM_SHA384', 'TLSv1.3', 256), 'TLSv1.3', 'http/1.1', \
                 ((('commonName', 'client'),),), (('DNS', 'a.test'),), True, False)"
            );
        });
    }
}
