//! Every call, once: REST and gRPC are made from this list.

/// Hands the list to a macro: the name of the RPC, the function that answers it, and its messages.
macro_rules! calls {
    ($made:ident) => {
        $made! {
            Login login LoginRequest LoginReply;
            Logout logout LogoutRequest LogoutResponse;
            RefreshToken refresh_token RefreshTokenRequest LoginReply;
            Authenticate authenticate AuthenticateRequest AuthenticateResponse;
            Authorize authorize AuthorizeRequest AuthorizeResponse;
            Auth auth AuthRequest AuthResponse;
            Explain explain ExplainRequest ExplainResponse;
            CreateUser create_user CreateUserRequest CreateUserResponse;
            UpdateUser update_user UpdateUserRequest UpdateUserResponse;
            DeleteUser delete_user DeleteUserRequest DeleteUserResponse;
            GetUser get_user GetUserRequest GetUserResponse;
            ListUser list_user ListUserRequest ListUserResponse;
            UpdatePassword update_password UpdatePasswordRequest UpdatePasswordResponse;
            CreateSecret create_secret CreateSecretRequest CreateSecretResponse;
            UpdateSecret update_secret UpdateSecretRequest UpdateSecretResponse;
            DeleteSecret delete_secret DeleteSecretRequest DeleteSecretResponse;
            GetSecret get_secret GetSecretRequest GetSecretResponse;
            ListSecret list_secret ListSecretRequest ListSecretResponse;
            CreatePolicy create_policy CreatePolicyRequest CreatePolicyResponse;
            DeletePolicy delete_policy DeletePolicyRequest DeletePolicyResponse;
            ListPolicy list_policy ListPolicyRequest ListPolicyResponse;
        }
    };
}

pub(crate) use calls;
