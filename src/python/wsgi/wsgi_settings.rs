//! The settings by which requests become environs and responses; made by the launcher for each worker.

/// A listener's address, as the environ shows it.
#[derive(Clone, Debug)]
pub enum ListenerAddress {
    /// `SERVER_NAME` and `SERVER_PORT`.
    Tcp {
        /// The bound address.
        name: String,
        /// The bound port.
        port: u16,
    },
    /// A unix socket's path, for clients that send no `Host`.
    Unix {
        /// The bound path.
        path: String,
    },
}

/// The settings by which requests are made and answered.
#[derive(Clone, Debug)]
pub struct WsgiSettings {
    /// `wsgi.multithread`.
    pub multithread: bool,
    /// `wsgi.multiprocess`.
    pub multiprocess: bool,
    /// `SERVER_SOFTWARE`.
    pub server_software: String,
    /// `SCRIPT_NAME` of every request, from the environment.
    pub script_name: String,
    /// Whether files may be sent by the kernel.
    pub sendfile: bool,
    /// In the order of the worker's listeners.
    pub listeners: Vec<ListenerAddress>,
    /// Keys of the environ that the access log shows.
    pub noted_keys: Vec<String>,
    /// Requests have a `ferricorn.request_id`, made from this seed when the client gave none.
    pub request_id_seed: Option<u64>,
}
