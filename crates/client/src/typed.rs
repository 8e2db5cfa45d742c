//! Calls with `k8s-openapi` types.

use std::marker::PhantomData;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions};
use k8s_openapi::{Metadata, Resource as TypedResource};
use pintle_api::Object;
use pintle_api::resources::{self, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Result;
use crate::client::{Client, ListParams, Patch, WriteParams, encode};
use crate::error::{Error, UnlessGone};

/// A built-in kind in its typed form.
pub trait Kind:
    TypedResource + Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned + Send + Sync + 'static
{
}
impl<T: TypedResource + Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned + Send + Sync + 'static> Kind for T {}

/// The registry's entry for a typed kind.
#[must_use]
pub fn resource_of<T: TypedResource>() -> &'static Resource {
    #[expect(clippy::expect_used, reason = "both tables are those of the same release; a test walks the kinds in use")]
    resources::by_kind(T::API_VERSION, T::KIND).expect("a kind of k8s-openapi is in the registry")
}

/// Decodes an object.
///
/// # Errors
/// When it does not fit the type.
pub fn decode<T: DeserializeOwned>(object: &Object) -> Result<T> {
    object.view().map_err(|e| Error::decode(format!("{object:?}"), e))
}

/// Calls about one typed kind. Made by [`Client::of`].
#[derive(Debug)]
pub struct Typed<T> {
    client: Client,
    resource: &'static Resource,
    kind: PhantomData<fn() -> T>,
}

impl Client {
    /// Calls about a typed kind.
    #[must_use]
    pub fn of<T: Kind>(&self) -> Typed<T> {
        Typed { client: self.clone(), resource: resource_of::<T>(), kind: PhantomData }
    }
}

fn names<T: Kind>(object: &T) -> (&str, &str) {
    let m = object.metadata();
    (m.namespace.as_deref().unwrap_or_default(), m.name.as_deref().unwrap_or_default())
}

impl<T: Kind> Typed<T> {
    fn read(object: &Arc<Object>) -> Result<T> {
        decode(object)
    }

    /// One object.
    ///
    /// # Errors
    /// As the API or the connection fails, or the answer does not fit the type.
    pub async fn get(&self, namespace: &str, name: &str) -> Result<T> {
        Self::read(&self.client.get(self.resource, namespace, name).await?)
    }

    /// One object, or `None` when it does not exist.
    ///
    /// # Errors
    /// As [`Typed::get`].
    pub async fn get_opt(&self, namespace: &str, name: &str) -> Result<Option<T>> {
        self.get(namespace, name).await.unless_gone()
    }

    /// A list; an empty namespace means all of them.
    ///
    /// # Errors
    /// As [`Typed::get`].
    pub async fn list(&self, namespace: &str, params: &ListParams) -> Result<Vec<T>> {
        self.client.list(self.resource, namespace, params).await?.items.iter().map(Self::read).collect()
    }

    /// Creates an object.
    ///
    /// # Errors
    /// As [`Typed::get`].
    pub async fn create(&self, object: &T) -> Result<T> {
        let (namespace, _) = names(object);
        Self::read(&self.client.create(self.resource, namespace, encode(object)?, &WriteParams::default()).await?)
    }

    /// Replaces an object.
    ///
    /// # Errors
    /// As [`Typed::get`].
    pub async fn update(&self, object: &T) -> Result<T> {
        self.update_sub(object, "").await
    }

    /// Replaces an object's status.
    ///
    /// # Errors
    /// As [`Typed::get`].
    pub async fn update_status(&self, object: &T) -> Result<T> {
        self.update_sub(object, "status").await
    }

    async fn update_sub(&self, object: &T, sub: &str) -> Result<T> {
        let (namespace, name) = names(object);
        Self::read(
            &self.client.update(self.resource, namespace, name, sub, encode(object)?, &WriteParams::default()).await?,
        )
    }

    /// Patches an object.
    ///
    /// # Errors
    /// As [`Typed::get`].
    pub async fn patch(&self, namespace: &str, name: &str, patch: Patch) -> Result<T> {
        Self::read(&self.client.patch(self.resource, namespace, name, "", patch, &WriteParams::default()).await?)
    }

    /// Patches an object's status.
    ///
    /// # Errors
    /// As [`Typed::get`].
    pub async fn patch_status(&self, namespace: &str, name: &str, patch: Patch) -> Result<T> {
        Self::read(&self.client.patch(self.resource, namespace, name, "status", patch, &WriteParams::default()).await?)
    }

    /// Deletes an object, and only the one with this uid when a uid is given.
    ///
    /// # Errors
    /// As the API or the connection fails.
    pub async fn delete(&self, namespace: &str, name: &str, uid: Option<&str>) -> Result<()> {
        let preconditions = uid.map(|u| Preconditions { uid: Some(u.to_owned()), ..Preconditions::default() });
        self.delete_with(namespace, name, &DeleteOptions { preconditions, ..DeleteOptions::default() }).await
    }

    /// Deletes an object as the options say.
    ///
    /// # Errors
    /// As the API or the connection fails.
    pub async fn delete_with(&self, namespace: &str, name: &str, options: &DeleteOptions) -> Result<()> {
        self.client.delete(self.resource, namespace, name, options).await.map(drop)
    }
}
