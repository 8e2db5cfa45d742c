//! Signing tokens that do not expire.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, PublicKeyData as _, SigningKey as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// Who such tokens say they are from.
const ISSUER: &str = "kubernetes/serviceaccount";

/// A key that signs.
pub struct Signer {
    key: KeyPair,
    header: String,
}

impl Signer {
    /// From a private key as PEM: RSA, or EC on P-256.
    ///
    /// # Errors
    /// When it is none of those.
    pub fn new(pem: &str) -> Result<Self, String> {
        let key = KeyPair::from_pem(pem).map_err(|e| format!("service account key: {e}"))?;
        let algorithm = match () {
            () if key.is_compatible(&PKCS_RSA_SHA256) => "RS256",
            () if key.is_compatible(&PKCS_ECDSA_P256_SHA256) => "ES256",
            () => return Err("service account key: keys of this type are not supported".into()),
        };
        let id = B64.encode(Sha256::digest(key.subject_public_key_info()));
        let header = B64.encode(json!({"alg": algorithm, "kid": id}).to_string());
        Ok(Self { key, header })
    }

    /// The token of an account that a Secret holds.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn legacy(&self, namespace: &str, secret: &str, account: &str, uid: &str) -> Result<String, String> {
        let claims = json!({
            "iss": ISSUER,
            "kubernetes.io/serviceaccount/namespace": namespace,
            "kubernetes.io/serviceaccount/secret.name": secret,
            "kubernetes.io/serviceaccount/service-account.name": account,
            "kubernetes.io/serviceaccount/service-account.uid": uid,
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
        });
        let message = format!("{}.{}", self.header, B64.encode(claims.to_string()));
        let mut signature = self.key.sign(message.as_bytes()).map_err(|e| format!("cannot sign: {e}"))?;
        if self.key.is_compatible(&PKCS_ECDSA_P256_SHA256) {
            signature = fixed(&signature).ok_or("the signature is malformed")?;
        }
        Ok(format!("{message}.{}", B64.encode(signature)))
    }
}

/// The two numbers of an EC signature, 32 bytes each, from their ASN.1 form.
fn fixed(der: &[u8]) -> Option<Vec<u8>> {
    let integer = |der: &mut &[u8]| -> Option<[u8; 32]> {
        let [0x02, len, rest @ ..] = *der else { return None };
        let (number, rest) = rest.split_at_checked(usize::from(*len))?;
        *der = rest;
        let number: &[u8] = &number[number.iter().take_while(|b| **b == 0).count()..];
        let mut out = [0; 32];
        out.get_mut(32usize.checked_sub(number.len())?..)?.copy_from_slice(number);
        Some(out)
    };
    let [0x30, _, body @ ..] = der else { return None };
    let mut body = body;
    let (r, s) = (integer(&mut body)?, integer(&mut body)?);
    Some([r, s].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_what_the_public_key_verifies() {
        let key = KeyPair::generate().unwrap();
        let signer = Signer::new(&key.serialize_pem()).unwrap();
        for _ in 0..20 {
            let token = signer.legacy("n", "t", "sa", "u").unwrap();
            let (message, signature) = token.rsplit_once('.').unwrap();
            let public = ring::signature::UnparsedPublicKey::new(
                &ring::signature::ECDSA_P256_SHA256_FIXED,
                key.public_key_raw(),
            );
            public.verify(message.as_bytes(), &B64.decode(signature).unwrap()).unwrap();
            let claims: serde_json::Value =
                serde_json::from_slice(&B64.decode(message.split_once('.').unwrap().1).unwrap()).unwrap();
            assert_eq!(claims["sub"], "system:serviceaccount:n:sa");
        }
        assert!(Signer::new("no key").is_err());
    }
}
