//! The usercenter as a part: its sockets, its key, its database, and the administrator's first password.

use anyhow::Context as _;
use onex_daemon::pki::{self, Clients};
use onex_usercenter::keys::Keys;
use onex_usercenter::{ADMIN, Handles, Usercenter, clock};

use crate::parts::{Parts, Socket};
use crate::platform::Platform;
use crate::{say, sockets};

/// Where its calls are taken: over REST and over gRPC.
pub struct Sockets {
    pub rest: Socket,
    pub grpc: Socket,
}

impl Parts<'_> {
    /// Listens where the usercenter will be.
    pub async fn usercenter_sockets(&self) -> anyhow::Result<Sockets> {
        let settings = &self.settings.usercenter;
        let bind = async |setting: &str, listen: &str| {
            let address = listen
                .parse()
                .with_context(|| format!("the setting {setting} is {listen:?}, which is not ADDRESS:PORT"))?;
            sockets::bind("usercenter", setting, address, self.ports).await
        };
        Ok(Sockets {
            rest: bind("usercenter.listen", &settings.listen).await?,
            grpc: bind("usercenter.grpc_listen", &settings.grpc_listen).await?,
        })
    }

    /// Starts the usercenter. At the first start over a database it says the password of the administrator, and never again.
    pub async fn usercenter(&self, platform: &mut Platform, sockets: Sockets) -> anyhow::Result<()> {
        let settings = self.settings.usercenter.clone();
        let (rest, grpc) = (sockets.rest.1, sockets.grpc.1);
        say::out(&format!("  usercenter   starting on https://{rest} and, for gRPC, https://{grpc}"));
        let named = if settings.key_file.is_empty() { "pki/usercenter.key" } else { settings.key_file.as_str() };
        let keys = Keys::open_or_create(&self.directory.join(named)).context("the usercenter's key")?;
        let db = self.db()?;
        let audit = if settings.audit { Some(self.audit().await?) } else { None };
        let center = Usercenter::new(settings, Handles { db, audit, keys, clock: clock() }).await?;
        if let Some(password) = center.first_password() {
            say::out(&format!(
                "\nThe administrator is made, with a password that is told only here:\nusername: {ADMIN}"
            ));
            say::out(&format!("password: {password}\n"));
        }
        let stage = platform.stage("usercenter");
        for (part, (socket, address), router) in [
            ("usercenter's listener", sockets.rest, center.router()),
            ("usercenter's gRPC listener", sockets.grpc, center.grpc().await),
        ] {
            let identity = self.authority.issue_server(&self.names(address.ip()))?;
            let tls = pki::server_config(&identity, Clients::MayShow(self.authority.certificate()))?;
            self.listen(stage, part, socket, Some(tls), router, stage.token());
        }
        stage.run("usercenter", center.run(stage.token()));
        Ok(())
    }
}
