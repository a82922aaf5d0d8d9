//! Owns: the certificate authority between controllers and proxies: what it issues, and how it is succeeded.
//! Called by the credentials actor, by the command that writes identity files, and by tests.
//! Refuses to know: where it is kept, and when somebody looks at it (`credentials.rs`).
//!
//! A successor is trusted before it signs: first its certificate joins those that everybody is given, and
//! only once all that was issued before has been issued again does its key sign. The old certificate is
//! trusted until it ends. docs/adr/0008 says why.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType,
    SerialNumber,
};
use rustls_pki_types::CertificateDer;

use super::identity::{
    Identity, IdentityError, Role, certificate_error, certificates, der_not_after, der_not_before, pem_of,
};

/// How long the authority itself is valid.
pub const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long what it issues is valid.
pub const LEAF_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Certificates begin to be valid this long before they are issued: clocks differ.
const BACKDATE: Duration = Duration::from_secs(300);
/// What certificates and keys of the authority are called in errors.
const AUTHORITY: &str = "the authority";

/// How long certificates live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lives {
    /// The authority's.
    pub authority: Duration,
    /// Those that it issues.
    pub leaf: Duration,
}

impl Default for Lives {
    fn default() -> Self {
        Self { authority: AUTHORITY_LIFE, leaf: LEAF_LIFE }
    }
}

impl Lives {
    /// How long before its end an authority gets a successor: time for four generations of what it
    /// issues, and for a person to notice that it does not happen.
    fn lead(&self) -> Duration {
        (self.authority / 10).max(self.leaf * 4).min(self.authority / 2)
    }
}

/// The authority that signs for controllers and proxies.
pub struct Authority {
    /// The certificate that signs first, then the others that are trusted; PEM.
    certificates: String,
    key: Arc<str>,
    issuer: Issuer<'static, KeyPair>,
    not_after: SystemTime,
    next: Option<Next>,
}

/// A successor that is trusted and does not sign yet.
struct Next {
    certificate: CertificateDer<'static>,
    key: Arc<str>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new authority, valid from now for `life`.
    ///
    /// # Errors
    /// Where no key can be made.
    pub fn generate(now: SystemTime, life: Duration) -> Result<Self, IdentityError> {
        let key = new_key(AUTHORITY)?;
        let mut params = params("portreeve authority", now, now + life);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(certificate_error(AUTHORITY))?;
        Self::from_pem(&certificate.pem(), &key.serialize_pem(), None)
    }

    /// The authority that a Secret or files hold: its certificates, the key that signs, and the key of a
    /// successor. Which certificate is whose, the keys say: so a successor takes over by one write, that
    /// of the key.
    ///
    /// # Errors
    /// Where the texts are not certificates and the key of one of them.
    pub fn from_pem(trusted: &str, key: &str, next: Option<&str>) -> Result<Self, IdentityError> {
        let trusted = certificates("the authority's certificates", trusted)?;
        let pair = KeyPair::from_pem(key).map_err(certificate_error(AUTHORITY))?;
        let signing = of_key(&trusted, &pair).ok_or(IdentityError::Unmatched)?;
        let next = match next {
            Some(key) => {
                let pair = KeyPair::from_pem(key).map_err(certificate_error("the authority's successor"))?;
                // One that is not trusted yet is none: it is made anew.
                let certificate = of_key(&trusted, &pair).filter(|other| *other != signing);
                certificate.cloned().map(|certificate| Next { certificate, key: key.into() })
            }
            None => None,
        };
        let others = trusted.iter().filter(|other| *other != signing);
        Ok(Self {
            certificates: std::iter::once(signing).chain(others).map(pem_of).collect(),
            not_after: der_not_after(signing).ok_or(IdentityError::Unmatched)?,
            issuer: Issuer::from_ca_cert_der(signing, pair).map_err(certificate_error(AUTHORITY))?,
            key: key.into(),
            next,
        })
    }

    /// What is to stand in its place by now; `None` where it is to stay as it is. Ever the same steps:
    /// a successor is announced, the successor signs, what has ended is trusted no longer.
    ///
    /// # Errors
    /// Where no key can be made.
    pub fn step(&self, now: SystemTime, lives: Lives) -> Result<Option<Self>, IdentityError> {
        match &self.next {
            // Nobody trusts it any more, nor could learn to trust another one by it.
            None if now >= self.not_after => Self::generate(now, lives.authority).map(Some),
            None if now + lives.lead() >= self.not_after => self.announce(now, lives).map(Some),
            Some(next) if now >= self.hand_over(next, lives) => self.hand_to(next, now).map(Some),
            _ => self.prune(now),
        }
    }

    fn announce(&self, now: SystemTime, lives: Lives) -> Result<Self, IdentityError> {
        let next = Self::generate(now, lives.authority)?;
        let trusted = format!("{}{}", self.certificates, next.certificates);
        Self::from_pem(&trusted, &self.key, Some(&next.key))
    }

    /// When the successor signs: twice as long after it was announced as anything lives that was issued
    /// before; where the announcement came late, half-way to the end.
    fn hand_over(&self, next: &Next, lives: Lives) -> SystemTime {
        let begins = der_not_before(&next.certificate).unwrap_or(SystemTime::UNIX_EPOCH);
        let announced = begins + BACKDATE;
        let left = self.not_after.duration_since(announced).unwrap_or_default();
        announced + (lives.leaf * 2).min(left / 2)
    }

    fn hand_to(&self, next: &Next, now: SystemTime) -> Result<Self, IdentityError> {
        Self::from_pem(&lasting(&self.certificates, now)?, &next.key, None)
    }

    fn prune(&self, now: SystemTime) -> Result<Option<Self>, IdentityError> {
        let lasting = lasting(&self.certificates, now)?;
        // Its own certificate is not taken from it.
        if lasting == self.certificates || now >= self.not_after {
            return Ok(None);
        }
        Self::from_pem(&lasting, &self.key, self.next_key_pem()).map(Some)
    }

    /// The certificates to trust, PEM; the one that signs is the first.
    pub fn certificates(&self) -> &str {
        &self.certificates
    }

    /// The private key, PEM: for the Secret or the file that keeps it, nothing else.
    pub fn key_pem(&self) -> &str {
        &self.key
    }

    /// The private key of a successor that was announced, PEM: for the Secret or the file that keeps it.
    pub fn next_key_pem(&self) -> Option<&str> {
        self.next.as_ref().map(|next| &*next.key)
    }

    /// When its certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Signs the public key of a certificate request (PKCS#10, PEM), valid from now for `life`, but no longer
    /// than the authority itself. What the request says besides is not heeded.
    ///
    /// # Errors
    /// Where the request can't be read, or is not signed by the key that it names.
    pub fn sign(
        &self,
        request: &str,
        role: &Role,
        now: SystemTime,
        life: Duration,
    ) -> Result<String, IdentityError> {
        let fail = certificate_error("the certificate request");
        let request = CertificateSigningRequestParams::from_pem(request).map_err(fail)?;
        let params = self.leaf(role, now, life)?;
        let certificate = params.signed_by(&request.public_key, &self.issuer);
        Ok(certificate.map_err(certificate_error(&role.uri()))?.pem())
    }

    /// A certificate for a role, valid from now for `life`, but no longer than the authority itself.
    ///
    /// # Errors
    /// Where no key or certificate can be made.
    pub fn issue(&self, role: &Role, now: SystemTime, life: Duration) -> Result<Identity, IdentityError> {
        let uri = role.uri();
        let key = new_key(&uri)?;
        let certificate = self.leaf(role, now, life)?.signed_by(&key, &self.issuer);
        let certificate = certificate.map_err(certificate_error(&uri))?;
        Identity::new(self.certificates.clone(), certificate.pem(), key.serialize_pem().into())
    }

    /// What a certificate for a role says.
    fn leaf(&self, role: &Role, now: SystemTime, life: Duration) -> Result<CertificateParams, IdentityError> {
        let uri = role.uri();
        let mut params = params(&uri, now, self.not_after.min(now + life));
        let name = uri.as_str().try_into().map_err(certificate_error(&uri))?;
        params.subject_alt_names = vec![SanType::URI(name)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

/// The certificate whose key this is.
fn of_key<'a>(
    certificates: &'a [CertificateDer<'static>],
    key: &KeyPair,
) -> Option<&'a CertificateDer<'static>> {
    let wanted = key.subject_public_key_info();
    certificates.iter().find(|certificate| {
        let parsed = x509_parser::parse_x509_certificate(certificate);
        parsed.is_ok_and(|(_, parsed)| parsed.public_key().raw == wanted)
    })
}

/// Those of the certificates that have not ended.
fn lasting(pem: &str, now: SystemTime) -> Result<String, IdentityError> {
    let all = certificates("the authority's certificates", pem)?;
    Ok(all.iter().filter(|one| der_not_after(one).is_some_and(|end| end > now)).map(pem_of).collect())
}

fn params(common_name: &str, now: SystemTime, end: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name.chars().take(64).collect::<String>());
    params.not_before = (now - BACKDATE).into();
    params.not_after = end.into();
    params.serial_number = Some(SerialNumber::from(rand::random::<[u8; 16]>().map(|b| b & 0x7f).to_vec()));
    params
}

fn new_key(what: &str) -> Result<KeyPair, IdentityError> {
    KeyPair::generate().map_err(certificate_error(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const LIVES: Lives = Lives { authority: Duration::from_secs(100 * 24 * 3600), leaf: DAY };

    fn count(authority: &Authority) -> usize {
        authority.certificates().matches("BEGIN").count()
    }

    /// What stands after the steps that are due by then.
    fn by(authority: Authority, now: SystemTime) -> Authority {
        let stepped = authority.step(now, LIVES).unwrap();
        let stepped = stepped.map_or(authority, |next| by(next, now));
        assert!(stepped.step(now, LIVES).unwrap().is_none(), "one step after the other, and then none");
        stepped
    }

    #[test]
    fn a_successor_is_trusted_before_it_signs_and_the_old_one_until_it_ends() {
        let start = SystemTime::now();
        let old = Authority::generate(start, LIVES.authority).unwrap();
        let (old_key, end) = (old.key_pem().to_owned(), old.not_after());
        let quiet = by(old, end - LIVES.lead() - DAY);
        assert_eq!(count(&quiet), 1);
        let announced = by(quiet, end - LIVES.lead());
        assert_eq!(
            (count(&announced), announced.key_pem()),
            (2, &*old_key),
            "both are trusted, the old one signs"
        );
        assert_eq!(announced.issue(&Role::Controller, start, DAY).unwrap().roots().unwrap().len(), 2);
        let still = by(announced, end - LIVES.lead() + DAY);
        assert_eq!(still.key_pem(), old_key, "what was issued before the announcement may be in use");
        let signs = by(still, end - LIVES.lead() + 2 * DAY + Duration::from_secs(1));
        assert_ne!(signs.key_pem(), old_key);
        assert_eq!((count(&signs), signs.next_key_pem()), (2, None));
        assert!(signs.not_after() > end);
        assert_eq!(count(&by(signs, end + Duration::from_secs(1))), 1);
    }

    #[test]
    fn an_authority_that_ended_long_ago_is_made_anew() {
        let start = SystemTime::now();
        let old = Authority::generate(start, LIVES.authority).unwrap();
        let (key, late) = (old.key_pem().to_owned(), old.not_after() + DAY);
        let new = by(old, late);
        assert_ne!(new.key_pem(), key);
        assert!(count(&new) == 1 && new.not_after() > late + LIVES.lead());
    }

    #[test]
    fn an_announcement_that_comes_late_leaves_half_of_what_is_left() {
        let old = Authority::generate(SystemTime::now(), LIVES.authority).unwrap();
        let (key, late) = (old.key_pem().to_owned(), old.not_after() - DAY);
        let announced = by(old, late);
        let still = by(announced, late + DAY / 2 - Duration::from_secs(60));
        assert_eq!(still.key_pem(), key);
        assert_ne!(by(still, late + DAY / 2 + Duration::from_secs(60)).key_pem(), key);
    }

    #[test]
    fn it_survives_its_secret_in_every_step() {
        let old = Authority::generate(SystemTime::now(), LIVES.authority).unwrap();
        let announced = by(old, SystemTime::now() + LIVES.authority - LIVES.lead());
        let read =
            Authority::from_pem(announced.certificates(), announced.key_pem(), announced.next_key_pem())
                .unwrap();
        assert_eq!(read.certificates(), announced.certificates());
        assert_eq!((read.key_pem(), read.next_key_pem()), (announced.key_pem(), announced.next_key_pem()));
        // The one write that hands over, on its own.
        let next = announced.next_key_pem().unwrap();
        let handed = Authority::from_pem(announced.certificates(), next, None).unwrap();
        assert_eq!(count(&handed), 2);
        assert!(handed.not_after() > announced.not_after());
    }

    #[test]
    fn a_key_without_its_certificate_is_refused_and_a_successor_without_one_is_none() {
        let (one, other) = (0, 1);
        let both = [one, other].map(|_| Authority::generate(SystemTime::now(), LIVES.authority).unwrap());
        let mixed = Authority::from_pem(both[one].certificates(), both[other].key_pem(), None);
        assert!(matches!(mixed, Err(IdentityError::Unmatched)));
        let next = Some(both[other].key_pem());
        let alone = Authority::from_pem(both[one].certificates(), both[one].key_pem(), next).unwrap();
        assert_eq!(alone.next_key_pem(), None);
    }

    #[test]
    fn what_it_issues_ends_no_later_than_itself() {
        let now = SystemTime::now();
        let authority = Authority::generate(now, DAY).unwrap();
        let issued = authority.issue(&Role::Controller, now, 2 * DAY).unwrap();
        assert_eq!(issued.not_after, authority.not_after());
    }

    #[test]
    fn of_a_request_the_public_key_alone_counts() {
        let (now, authority) = (SystemTime::now(), Authority::generate(SystemTime::now(), DAY * 9).unwrap());
        let key = KeyPair::generate().unwrap();
        let mut wishes = CertificateParams::default();
        wishes.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        wishes.subject_alt_names =
            vec![SanType::URI(crate::push::identity::CONTROLLER_URI.try_into().unwrap())];
        let request = wishes.serialize_request(&key).unwrap().pem().unwrap();
        let signed = authority.sign(&request, &Role::Proxy("u".into()), now, DAY).unwrap();
        let leaf = certificates("the test", &signed).unwrap().swap_remove(0);
        assert!(crate::push::identity::speaks_for(&leaf, "urn:portreeve:proxy:u"));
        let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).unwrap();
        assert!(!parsed.is_ca());
        assert_eq!(parsed.public_key().raw, key.subject_public_key_info());
        assert!(authority.sign("no request", &Role::Controller, now, DAY).is_err());
    }
}
