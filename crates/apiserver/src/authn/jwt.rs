//! JSON web tokens: RS256 and ES256, signed and checked.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo};

/// The kinds of key there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Rs256,
    Es256,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }
}

/// A key that checks tokens.
#[derive(Clone, Debug)]
pub(crate) struct PublicKey {
    algorithm: Algorithm,
    /// As `ring` takes it: PKCS#1 for RSA, an uncompressed point for EC.
    raw: Vec<u8>,
    /// Upstream's key id: the hash of the public key.
    pub(crate) id: String,
}

/// A key that signs tokens.
pub(crate) struct Signer {
    key: Private,
    public: PublicKey,
}

enum Private {
    Rsa(Box<RsaKeyPair>),
    Ec(Box<EcdsaKeyPair>),
}

/// DER: tag, length, content.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|p| p.len()).sum();
    let mut out = vec![tag];
    if len < 0x80 {
        out.push(u8::try_from(len).unwrap_or(0));
    } else {
        let bytes: Vec<u8> = len.to_be_bytes().into_iter().skip_while(|b| *b == 0).collect();
        out.push(0x80 | u8::try_from(bytes.len()).unwrap_or(0));
        out.extend(bytes);
    }
    for p in parts {
        out.extend_from_slice(p);
    }
    out
}

const RSA_OID: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
const P256_OID: &[u8] =
    &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

impl PublicKey {
    fn new(algorithm: Algorithm, raw: Vec<u8>) -> Self {
        use sha2::Digest;
        let oid = match algorithm {
            Algorithm::Rs256 => RSA_OID,
            Algorithm::Es256 => P256_OID,
        };
        let info = der(0x30, &[&der(0x30, &[oid]), &der(0x03, &[&[0], &raw])]);
        let id = B64.encode(sha2::Sha256::digest(info));
        Self { algorithm, raw, id }
    }

    /// From PEM: a public key, a certificate's key or a private key.
    ///
    /// # Errors
    /// When it is none of those.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Vec<Self>, String> {
        if let Ok(private) = Signer::from_pem(pem) {
            return Ok(vec![private.public]);
        }
        let mut out = Vec::new();
        for info in SubjectPublicKeyInfoDer::pem_slice_iter(pem) {
            out.push(Self::from_info(&info.map_err(|e| e.to_string())?)?);
        }
        if out.is_empty() {
            for cert in super::x509::certificates(pem)? {
                let (_, c) = x509_parser::certificate::X509Certificate::from_der(&cert).map_err(|e| e.to_string())?;
                out.push(Self::from_info(c.public_key().raw)?);
            }
        }
        if out.is_empty() { Err("no public key found".into()) } else { Ok(out) }
    }

    fn from_info(der: &[u8]) -> Result<Self, String> {
        let (_, info) = SubjectPublicKeyInfo::from_der(der).map_err(|e| e.to_string())?;
        let raw = info.subject_public_key.data.to_vec();
        match info.algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.1" => Ok(Self::new(Algorithm::Rs256, raw)),
            "1.2.840.10045.2.1" if raw.len() == 65 => Ok(Self::new(Algorithm::Es256, raw)),
            other => Err(format!("keys of type {other} are not supported")),
        }
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self.algorithm {
            Algorithm::Rs256 => {
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.raw).verify(message, signature)
            }
            Algorithm::Es256 => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.raw).verify(message, signature),
        }
        .is_ok()
    }

    /// As a JSON web key.
    pub(crate) fn jwk(&self) -> Value {
        match self.algorithm {
            Algorithm::Es256 => json!({
                "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
                "x": B64.encode(self.raw.get(1..33).unwrap_or_default()),
                "y": B64.encode(self.raw.get(33..65).unwrap_or_default()),
            }),
            Algorithm::Rs256 => {
                let parsed = x509_parser::public_key::RSAPublicKey::from_der(&self.raw);
                let (n, e) = parsed.map(|(_, k)| (k.modulus.to_vec(), k.exponent.to_vec())).unwrap_or_default();
                let trim = |v: &[u8]| B64.encode(&v[v.iter().position(|b| *b != 0).unwrap_or(v.len())..]);
                json!({"use": "sig", "kty": "RSA", "kid": self.id, "alg": "RS256", "n": trim(&n), "e": trim(&e)})
            }
        }
    }

    /// The name of its algorithm.
    pub(crate) fn algorithm(&self) -> &'static str {
        self.algorithm.name()
    }
}

impl Signer {
    /// From PEM: PKCS#8 or PKCS#1 RSA, PKCS#8 or SEC1 P-256.
    ///
    /// # Errors
    /// When it is no such key.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|e| e.to_string())?;
        let random = SystemRandom::new();
        let ec = |pkcs8: &[u8]| EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random);
        let private = match &key {
            PrivateKeyDer::Pkcs8(k) => match RsaKeyPair::from_pkcs8(k.secret_pkcs8_der()) {
                Ok(k) => Private::Rsa(Box::new(k)),
                Err(_) => {
                    Private::Ec(Box::new(ec(k.secret_pkcs8_der()).map_err(|e| format!("service account key: {e}"))?))
                }
            },
            PrivateKeyDer::Pkcs1(k) => Private::Rsa(Box::new(
                RsaKeyPair::from_der(k.secret_pkcs1_der()).map_err(|e| format!("service account key: {e}"))?,
            )),
            PrivateKeyDer::Sec1(k) => {
                // Wrapped as PKCS#8, which is what can be read.
                let wrapped =
                    der(0x30, &[&[0x02, 0x01, 0x00], &der(0x30, &[P256_OID]), &der(0x04, &[k.secret_sec1_der()])]);
                Private::Ec(Box::new(ec(&wrapped).map_err(|e| format!("service account key: {e}"))?))
            }
            _ => return Err("service account key: unknown form".into()),
        };
        let public = match &private {
            Private::Rsa(k) => PublicKey::new(Algorithm::Rs256, k.public_key().as_ref().to_vec()),
            Private::Ec(k) => PublicKey::new(Algorithm::Es256, k.public_key().as_ref().to_vec()),
        };
        Ok(Self { key: private, public })
    }

    /// The key that checks what this one signs.
    pub(crate) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs claims.
    ///
    /// # Errors
    /// When the machine gives no randomness.
    pub(crate) fn sign(&self, claims: &Value) -> Result<String, String> {
        let header = json!({"alg": self.public.algorithm.name(), "kid": self.public.id});
        let message = format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims.to_string()));
        let random = SystemRandom::new();
        let failed = |_| "signing a token failed".to_owned();
        let signature = match &self.key {
            Private::Rsa(k) => {
                let mut out = vec![0; k.public().modulus_len()];
                k.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut out).map_err(failed)?;
                out
            }
            Private::Ec(k) => k.sign(&random, message.as_bytes()).map_err(failed)?.as_ref().to_vec(),
        };
        Ok(format!("{message}.{}", B64.encode(signature)))
    }
}

/// The claims of a token, when one of the keys has signed it. Who issued it is to be checked before (cheaply, from
/// [`unverified`]) and everything else after.
pub(crate) fn verify(token: &str, keys: &[PublicKey]) -> Option<Value> {
    let (message, signature) = token.rsplit_once('.')?;
    let (header, payload) = message.split_once('.')?;
    let header: Value = serde_json::from_slice(&B64.decode(header).ok()?).ok()?;
    let signature = B64.decode(signature).ok()?;
    let algorithm = header.get("alg")?.as_str()?;
    let id = header.get("kid").and_then(Value::as_str);
    keys.iter()
        .filter(|k| k.algorithm.name() == algorithm && id.is_none_or(|id| id == k.id || id.is_empty()))
        .find(|k| k.verifies(message.as_bytes(), &signature))?;
    serde_json::from_slice(&B64.decode(payload).ok()?).ok()
}

/// The claims of a token, not to be believed.
pub(crate) fn unverified(token: &str) -> Option<Value> {
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    serde_json::from_slice(&B64.decode(payload).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_and_checks() {
        let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
        let signer = Signer::from_pem(pem.as_bytes()).unwrap();
        let token = signer.sign(&json!({"sub": "a"})).unwrap();
        assert_eq!(verify(&token, &[signer.public().clone()]).unwrap(), json!({"sub": "a"}));
        assert_eq!(unverified(&token).unwrap(), json!({"sub": "a"}));
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let keys = PublicKey::from_pem(other.public_key_pem().as_bytes()).unwrap();
        assert!(verify(&token, &keys).is_none());
        let mut broken = token.clone();
        broken.insert(token.find('.').unwrap() + 2, 'x');
        assert!(verify(&broken, &[signer.public().clone()]).is_none());
        for text in ["", "a", "a.b", "a.b.c", "..", "e30.e30."] {
            assert!(verify(text, &[signer.public().clone()]).is_none(), "{text}");
        }
        assert_eq!(signer.public().jwk()["crv"], "P-256");
        assert_eq!(PublicKey::from_pem(pem.as_bytes()).unwrap()[0].id, signer.public().id);
    }
}
