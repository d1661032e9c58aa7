//! What certificates say of themselves: names, dates, serial numbers.

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{self, Any, Decode as _, Encode as _, Tag, Tagged as _};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::RdnSequence;
use x509_cert::time::Time;

/// A client's certificate, as applications see it. It has been verified; this only describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    pub subject: DistinguishedName,
    pub issuer: DistinguishedName,
    /// Hexadecimal, upper case, without a sign.
    pub serial_number: String,
    /// Unix seconds, as the next.
    pub not_before: i64,
    pub not_after: i64,
    /// 1 to 3.
    pub version: u8,
    /// In order: OpenSSL's word for the kind (`DNS`, `email`, `URI`, `IP Address`, ..) and the name.
    pub alternative_names: Vec<(&'static str, String)>,
}

/// Relative names in the certificate's order, each a set of attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DistinguishedName(pub Vec<Vec<NameAttribute>>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAttribute {
    /// As in Python's `getpeercert()`: `commonName`; the number of an unknown one.
    pub long_name: String,
    /// As in the text of a distinguished name: `CN`.
    pub short_name: String,
    pub value: String,
}

impl PeerCertificate {
    /// `None`: webpki has accepted the certificate and this stricter reader does not.
    #[must_use]
    pub fn parse(der: &CertificateDer<'_>) -> Option<Self> {
        let certificate = Certificate::from_der(der).ok()?.tbs_certificate;
        let serial_number = certificate.serial_number.as_bytes();
        Some(Self {
            subject: distinguished_name(&certificate.subject),
            issuer: distinguished_name(&certificate.issuer),
            serial_number: hex(without_sign(serial_number)),
            not_before: seconds(certificate.validity.not_before),
            not_after: seconds(certificate.validity.not_after),
            version: certificate.version as u8 + 1,
            alternative_names: alternative_names(&certificate),
        })
    }
}

impl DistinguishedName {
    /// The text of RFC 2253: the last relative name first, separated by commas.
    #[must_use]
    pub fn text(&self) -> String {
        let relative = |attributes: &Vec<NameAttribute>| {
            let parts = attributes
                .iter()
                .map(|attribute| format!("{}={}", attribute.short_name, escaped(&attribute.value)));
            parts.collect::<Vec<_>>().join("+")
        };
        let parts = self.0.iter().rev().map(relative);
        parts.collect::<Vec<_>>().join(",")
    }

    /// The last common name there is.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        let mut attributes = self.0.iter().flatten().rev();
        let found = attributes.find(|attribute| attribute.short_name == "CN");
        found.map(|attribute| attribute.value.as_str())
    }
}

/// What the arbiter asks of a server's own certificate.
#[derive(Clone, Debug)]
pub(super) struct LeafInfo {
    /// Lower case; the common name where there are no alternative names.
    pub(super) names: Vec<String>,
    pub(super) not_before: i64,
    pub(super) not_after: i64,
    /// The bits of the public key.
    pub(super) public_key: Vec<u8>,
}

pub(super) fn leaf_info(der: &CertificateDer<'_>) -> der::Result<LeafInfo> {
    let certificate = Certificate::from_der(der)?.tbs_certificate;
    let alternatives = alternative_names(&certificate).into_iter();
    let mut names: Vec<String> = alternatives
        .filter(|(kind, _)| ["DNS", "IP Address"].contains(kind))
        .map(|(_, name)| name.to_ascii_lowercase())
        .collect();
    if names.is_empty() {
        let subject = distinguished_name(&certificate.subject);
        names.extend(subject.common_name().map(str::to_ascii_lowercase));
    }
    let public_key = certificate.subject_public_key_info.subject_public_key;
    Ok(LeafInfo {
        names,
        not_before: seconds(certificate.validity.not_before),
        not_after: seconds(certificate.validity.not_after),
        public_key: public_key.raw_bytes().to_vec(),
    })
}

/// Of a certificate in a chain: clients read it, so only its outline must be right (RFC 5280 section 4.1).
pub(super) fn check_shape(der: &CertificateDer<'_>) -> der::Result<()> {
    let parts = Vec::<Any>::from_der(der)?;
    match parts.iter().map(Any::tag).collect::<Vec<_>>()[..] {
        [Tag::Sequence, Tag::Sequence, Tag::BitString] => Ok(()),
        _ => Err(Tag::Sequence.value_error()),
    }
}

/// Of a certificate in a chain. One that only its clients can read may be anything.
pub(super) fn is_expired(der: &CertificateDer<'_>, now: i64) -> bool {
    leaf_info(der).is_ok_and(|info| info.not_after < now)
}

/// The bits of the public key in a `SubjectPublicKeyInfo`.
pub(super) fn public_key_bits(info: &[u8]) -> Option<Vec<u8>> {
    let info = x509_cert::spki::SubjectPublicKeyInfoOwned::from_der(info).ok()?;
    Some(info.subject_public_key.raw_bytes().to_vec())
}

fn seconds(time: Time) -> i64 {
    i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
}

fn without_sign(number: &[u8]) -> &[u8] {
    match number {
        [0, rest @ ..] if !rest.is_empty() => rest,
        number => number,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// OpenSSL's long and short names of the attributes that certificates use.
const ATTRIBUTES: [(&str, &str, &str); 17] = [
    ("2.5.4.3", "commonName", "CN"),
    ("2.5.4.4", "surname", "SN"),
    ("2.5.4.5", "serialNumber", "serialNumber"),
    ("2.5.4.6", "countryName", "C"),
    ("2.5.4.7", "localityName", "L"),
    ("2.5.4.8", "stateOrProvinceName", "ST"),
    ("2.5.4.9", "streetAddress", "street"),
    ("2.5.4.10", "organizationName", "O"),
    ("2.5.4.11", "organizationalUnitName", "OU"),
    ("2.5.4.12", "title", "title"),
    ("2.5.4.13", "description", "description"),
    ("2.5.4.42", "givenName", "GN"),
    ("2.5.4.46", "dnQualifier", "dnQualifier"),
    (
        "2.5.4.97",
        "organizationIdentifier",
        "organizationIdentifier",
    ),
    ("0.9.2342.19200300.100.1.1", "userId", "UID"),
    ("0.9.2342.19200300.100.1.25", "domainComponent", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress", "emailAddress"),
];

fn attribute(id: ObjectIdentifier, value: &Any) -> NameAttribute {
    let number = id.to_string();
    let known = ATTRIBUTES.iter().find(|(known, ..)| *known == number);
    let (long_name, short_name) = match known {
        Some((_, long, short)) => ((*long).to_owned(), (*short).to_owned()),
        None => (number.clone(), number),
    };
    NameAttribute {
        long_name,
        short_name,
        value: text(value),
    }
}

fn distinguished_name(name: &RdnSequence) -> DistinguishedName {
    let relative = name.0.iter().map(|relative| {
        let attributes = relative.0.iter();
        attributes
            .map(|pair| attribute(pair.oid, &pair.value))
            .collect()
    });
    DistinguishedName(relative.collect())
}

/// The value of an attribute, whatever string type it has; another type as `#` and its bytes.
fn text(value: &Any) -> String {
    let bytes = value.value();
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString => {
            String::from_utf8_lossy(bytes).into_owned()
        }
        Tag::TeletexString => bytes.iter().copied().map(char::from).collect(),
        Tag::BmpString => {
            let units = bytes
                .chunks_exact(2)
                .map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            char::decode_utf16(units)
                .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
                .collect()
        }
        _ => value
            .to_der()
            .map_or_else(|_| String::new(), |der| format!("#{}", hex(&der))),
    }
}

/// RFC 2253, section 2.4. Controls are escaped too, because the text goes into environ and logs.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (at, letter) in value.chars().enumerate() {
        let is_edge_space = letter == ' ' && (at == 0 || at == last);
        let is_first_hash = letter == '#' && at == 0;
        if is_edge_space || is_first_hash || ",+\"\\<>;".contains(letter) {
            out.push('\\');
            out.push(letter);
        } else if letter.is_control() {
            let mut bytes = [0; 4];
            for byte in letter.encode_utf8(&mut bytes).bytes() {
                out.push_str(&format!("\\{byte:02X}"));
            }
        } else {
            out.push(letter);
        }
    }
    out
}

fn alternative_names(certificate: &x509_cert::TbsCertificate) -> Vec<(&'static str, String)> {
    let Ok(Some((_, names))) = certificate.get::<SubjectAltName>() else {
        return Vec::new();
    };
    let one = |name: &GeneralName| match name {
        GeneralName::DnsName(name) => Some(("DNS", name.to_string())),
        GeneralName::Rfc822Name(name) => Some(("email", name.to_string())),
        GeneralName::UniformResourceIdentifier(name) => Some(("URI", name.to_string())),
        GeneralName::IpAddress(bytes) => Some(("IP Address", address(bytes.as_bytes()))),
        GeneralName::DirectoryName(name) => Some(("DirName", distinguished_name(name).text())),
        GeneralName::RegisteredId(id) => Some(("Registered ID", id.to_string())),
        GeneralName::OtherName(_) | GeneralName::EdiPartyName(_) => None,
    };
    names.0.iter().filter_map(one).collect()
}

fn address(bytes: &[u8]) -> String {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return std::net::Ipv4Addr::from(v4).to_string();
    }
    match <[u8; 16]>::try_from(bytes) {
        Ok(v6) => std::net::Ipv6Addr::from(v6).to_string(),
        Err(_) => hex(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_material::Authority;
    use super::*;
    use rcgen::{DnType, DnValue, SanType, SerialNumber};

    #[test]
    fn a_certificate_is_described_as_openssl_does() {
        let signed = Authority::new("author, ity").sign_with(&["a.example"], |params| {
            let name = &mut params.distinguished_name;
            name.push(DnType::CountryName, "DE");
            name.push(
                DnType::OrganizationName,
                DnValue::BmpString("Grüße".try_into().unwrap()),
            );
            name.push(
                DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]),
                "a@b.example",
            );
            name.push(DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 9]), "#odd \n");
            name.push(DnType::CommonName, " A+B ");
            params.serial_number = Some(SerialNumber::from_slice(&[0x9f, 1]));
            let addresses = ["10.0.0.1", "::1"].map(|text| text.parse().unwrap());
            params
                .subject_alt_names
                .extend(addresses.map(SanType::IpAddress));
            params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        });
        let certificate = PeerCertificate::parse(&signed.der).unwrap();
        assert_eq!(
            certificate.subject.text(),
            "1.3.6.1.4.1.9=\\#odd \\0A,emailAddress=a@b.example,O=Grüße,C=DE,CN=\\ A\\+B\\ "
        );
        assert_eq!(certificate.subject.common_name(), Some(" A+B "));
        assert_eq!(certificate.subject.0[2][0].long_name, "organizationName");
        assert_eq!(certificate.issuer.common_name(), Some("author, ity"));
        assert_eq!(certificate.serial_number, "9F01");
        assert_eq!(
            (certificate.version, certificate.not_after),
            (3, 1_893_456_000)
        );
        let names = [
            ("DNS", "a.example"),
            ("IP Address", "10.0.0.1"),
            ("IP Address", "::1"),
        ];
        let names = names.map(|(kind, name)| (kind, name.to_owned()));
        assert_eq!(certificate.alternative_names, names);
        assert_eq!(PeerCertificate::parse(&signed.der[1..].into()), None);
    }
}
