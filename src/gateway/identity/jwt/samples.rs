//! Keys and tokens that other programs created. The samples `RFC_*` are examples of RFCs. OpenSSL and PyJWT created the
//! other samples. The claims of the tokens of OpenSSL and PyJWT are
//! `{"sub":"10010","groups":["room","staff"],"exp":4102444800}`.

/// The secret of [`HS256`].
pub const SECRET: &str = "a secret of thirty-two bytes or so";

pub const HS256: &str = "\
     eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMDAxMCIsImdyb3VwcyI6WyJyb29tIiwic3RhZmYiXSwiZXhwIjo0MTAyNDQ\
     0ODAwfQ.jqObLGX_rAqqH_Y4sNX2lglT5OepO2OkW2Fevu9Na1c";

pub const RSA: &str = "\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAwk6JryC5zT31OA3B00+2
CeCD7vEzvbPGFrGU81xX8Ol9ehqx+fhm4bIIAJGXw5p3/9+2oR3sBG5twkLG9NF9
z4M+bsupHfuovMhCO1HsboYgkq9K1Xlq99gPdmE/2K/BAxLxm79GwB1Y6DcPlB0d
SsxhxhYm288y7p6bCJit8L1GDvglBj4+V1Z/dZGUeYpXWUCjYIEFUDsFTVmAzdpE
9V2NiscpjT7NGq3KtG5rAJDz1EhN1Y5rQOHKUtlQJwYrTJLEzOfYPmxHRQc0QlLG
897L1CAaoG2yiVfOmFuLoS3tBqievAQVb6ehKLZip7zSwIt9bQOYHDYTiemf84bE
vQIDAQAB
-----END PUBLIC KEY-----
";

/// The key of [`RSA`], in the form of PKCS #1.
pub const RSA_PKCS1: &str = "\
-----BEGIN RSA PUBLIC KEY-----
MIIBCgKCAQEAwk6JryC5zT31OA3B00+2CeCD7vEzvbPGFrGU81xX8Ol9ehqx+fhm
4bIIAJGXw5p3/9+2oR3sBG5twkLG9NF9z4M+bsupHfuovMhCO1HsboYgkq9K1Xlq
99gPdmE/2K/BAxLxm79GwB1Y6DcPlB0dSsxhxhYm288y7p6bCJit8L1GDvglBj4+
V1Z/dZGUeYpXWUCjYIEFUDsFTVmAzdpE9V2NiscpjT7NGq3KtG5rAJDz1EhN1Y5r
QOHKUtlQJwYrTJLEzOfYPmxHRQc0QlLG897L1CAaoG2yiVfOmFuLoS3tBqievAQV
b6ehKLZip7zSwIt9bQOYHDYTiemf84bEvQIDAQAB
-----END RSA PUBLIC KEY-----
";

pub const RS256: &str = "\
     eyJhbGciOiJSUzI1NiIsImtpZCI6Ii4uLy4uL2V0Yy9wYXNzd2QiLCJ0eXAiOiJKV1QifQ.eyJzdWIiOiIxMDAxMCIsImdyb3VwcyI6WyJyb\
     29tIiwic3RhZmYiXSwiZXhwIjo0MTAyNDQ0ODAwfQ.dFEy4CzHjOmevdKy-NRtj0kQo_1pUbwknBSvCMi4bDXnXVcaC8lg7QWwe19oazSSSQ\
     LCfaBj8eyGHgIQta1qfFLMICXlDYZc-zF2HKQgsFJah_AFzimP3jO-rq_gInUeRKJo-8EzyUbzdXPNM1Hwu5boVJTpBlXej4KXP-clwpeWpP\
     soTqtdRVI5yOTNw-gctMIJgaKch2JKkr1-I1VSC_DzuCfuHGQYibf1kGU3NXqhJZJ2b-c584KhpftDyE88DZLENl-lbwRAtufmP4cmpFy6bT\
     huYucsEPj9lygMmOE2-hVTG5TtoR-fCbm41xV7LW-2sXUhbu8zS17FzjiyxQ";

/// A token that is signed with RS512 by the key of [`RSA`]. The server uses the key of [`RSA`] only for RS256.
pub const RS512: &str = "\
     eyJhbGciOiJSUzUxMiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMDAxMCIsImdyb3VwcyI6WyJyb29tIiwic3RhZmYiXSwiZXhwIjo0MTAyNDQ\
     0ODAwfQ.TTDGE1zAzD29ILX4o3DO5zctNi0UnWw_CzwsGdUxezlBJcKYZlBpTwyFrXSy6pLF5UC2oANjat4E9RexVuQ2CRLWI9qfnd7AZwAo\
     OUq4_fjlnn_ZzD7CfrUn9H4vnHJq7F1X_aAsOv7rHgKuq2QwM2zFQgX9hm_rTzAtq1wWxOAH8sIk8Pyf3Vffq6D90Zvuj-GojyFrrTFg1bQD\
     rWqhra5TBY2kdR3NM7hhERQ6X4ieUeexEk-Rs5-SLRxZ0BDGawFnLmXau2ed_L6eoW4fC6tMGCbvPnpAfLGfc75_AOpXFIIjZyxO1XI6aMek\
     be74spcepmU7yTqZbZKD30zybA";

/// A token that is signed with PS256 by the key of [`RSA`].
pub const PS256: &str = "\
     eyJhbGciOiJQUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMDAxMCIsImdyb3VwcyI6WyJyb29tIiwic3RhZmYiXSwiZXhwIjo0MTAyNDQ\
     0ODAwfQ.LZqj4GclgswIFIF8aZrxwwwpzwjheRWm8_fSkj-EaqgNcAfq8I_aAfQqtvgoYKBZSw7L7744rKAmOKGbstkOVSGyvWu7ueC3b17s\
     5-MCXeW1LCeQdMkKLCEm_oXloTn7-dulgAHFnLfE9i9xDXvMmNgiEtV1a2CstBkhMSYlzNurtqlMDV8-Y-RmKzX-8QSYoenTWA6z3c57XjSJ\
     HE-PC1QeuaRV0jMJl4AGa5TehJ7TNGFbD41bmUxZdlcNALejwe5atoMH99oiVdGX2YyWkQ38nlN0zr_ggnR6LR4SpS_PXgUG_KmCyn2H6FEW\
     virQSYnPwL2Ww7oRKTH4VyE5tg";

pub const EC: &str = "\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEiNLJZg+t4vmKLcExmml29WfAZOKL
DAOeKXK01ex6SnOhOr2slCGbUJoXJOLpd1IS942LEr7z+8tSY1boxmMjqg==
-----END PUBLIC KEY-----
";

pub const ES256: &str = "\
     eyJhbGciOiJFUzI1NiIsImtpZCI6Ii4uLy4uL2V0Yy9wYXNzd2QiLCJ0eXAiOiJKV1QifQ.eyJzdWIiOiIxMDAxMCIsImdyb3VwcyI6WyJyb\
     29tIiwic3RhZmYiXSwiZXhwIjo0MTAyNDQ0ODAwfQ.SMQFXlOZRZcrGMarC1nXu1W7Es3J-Eeiik-IlxC3mGbflnqvcHB3j7VhqTsx6CXUDl\
     vxFwCrwc_kfx2UEYCAsw";

pub const ED: &str = "\
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAdI88inReWivWdvvoPOpaD7HZprk+UVD/+bNZQh1vIeM=
-----END PUBLIC KEY-----
";

pub const EDDSA: &str = "\
     eyJhbGciOiJFZERTQSIsImtpZCI6Ii4uLy4uL2V0Yy9wYXNzd2QiLCJ0eXAiOiJKV1QifQ.eyJzdWIiOiIxMDAxMCIsImdyb3VwcyI6WyJyb\
     29tIiwic3RhZmYiXSwiZXhwIjo0MTAyNDQ0ODAwfQ.h6sD-7o_mmqY5tdA9YRvLDUqNoK3EpG-CkzTLepKgH5Ew-riH11GQLLPEkMjQ_DAJP\
     dUwFMKS8vne0OmdLe8Cg";

/// The HS256 token of RFC 7515 appendix A.1. The token has no `sub`. Its `iss` is `joe`, and its `exp` is 1300819380.
pub const RFC_HS256: &str = "\
     eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGx\
     lLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

/// The key of [`RFC_HS256`], in base64url.
pub const RFC_SECRET: &str = "\
     AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";

/// The RS256 token of RFC 7515 appendix A.2. Its claims are the claims of [`RFC_HS256`].
pub const RFC_RS256: &str = "\
     eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp\
     0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9\
     uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383\
     LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVm\
     tVrBp0igcN_IoypGlUPQGe77Rw";

pub const RFC_RSA: &str = "\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAofgWCuLjybRlzo0tZWJj
NiuSfb4p4fAkd/wWJcyQoTbji9k0l8W26mPddxHmfHQp+Vaw+4qPCJrcS2mJPMEz
P1Pt0Bm4d4QlL+yRT+SFd2lZS+pCgNMsD1W/YpRPEwOWvG6b32690r2jZ47soMZo
9wGzjb/7OMg0LOL+bSf63kpaSHSXndS5z5rexMdbBYUsLA9e+KXBdQOS+UTo7WTB
EMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6/I5IhlJH7aGhyxX
FvUK+DWNmoudF8NAco9/h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXp
oQIDAQAB
-----END PUBLIC KEY-----
";

/// The ES256 token of RFC 7515 appendix A.3. Its claims are the claims of [`RFC_HS256`].
pub const RFC_ES256: &str = "\
     eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp\
     0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

pub const RFC_EC: &str = "\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7
6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==
-----END PUBLIC KEY-----
";

/// The EdDSA example of RFC 8037 appendix A.4. The payload is a sentence, and not an object of claims.
pub const RFC_EDDSA: &str = "\
     eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcN\
     R4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

pub const RFC_ED: &str = "\
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
-----END PUBLIC KEY-----
";

pub const RSA_1024: &str = "\
-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC1We/B47RXmqiU50bVn4XsqY6E
d/ESUhMKAd5TWw08+BmjJPnwPFnuBjWIm/NWaMequt5ZeB1/mu7jP8Q+gdYfbOY4
qkNKIP8df4meYx2qFL/DIFYidpOWXlS5P2LMiGjPNFSMoalpN6Qb8jJbjZx/EgFF
kcUdoxLoFk8YVM/tWQIDAQAB
-----END PUBLIC KEY-----
";

pub const EC_P384: &str = "\
-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE7qOxFe4waLVk55m28r0Bb5fhlpjAFE9l
nu2zdCzcTUGJWtNzvBd+TjEmoMRRBiBAp41yJGVS1vO2fJeSGe4htMJhj6JsWZMg
WTjwySc4Y//6oPevlChJHtC8mPwtlX7p
-----END PUBLIC KEY-----
";

/// A key on the curve secp256k1. This key is as long as a key on P-256.
pub const EC_K1: &str = "\
-----BEGIN PUBLIC KEY-----
MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAE5DolxjuIES3PIjH/zH1O9vEb9sKiNtk6
6awVCPrTEiKmftaLndop6IIn31TAhobXf/s1kGpDEgSksfAbcCIYcQ==
-----END PUBLIC KEY-----
";

pub const ED448: &str = "\
-----BEGIN PUBLIC KEY-----
MEMwBQYDK2VxAzoA9Bon2R37Fy0laTSYXhurG9+k0IuWYm77bF6KoRS/l8sUxmfq
D1p4aocZnKFeG4ycu1/zAE8pd+6A
-----END PUBLIC KEY-----
";

/// An Ed25519 key without its last byte.
pub const ED_SHORT: &str = "\
-----BEGIN PUBLIC KEY-----
MCkwBQYDK2VwAyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==
-----END PUBLIC KEY-----
";

/// A self-signed certificate with an Ed25519 key.
pub const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBLDCB36ADAgECAhRGUVb79CvOfN01iFZwif8wF+GNXjAFBgMrZXAwDDEKMAgG
A1UEAwwBYTAeFw0yNjExMjMxMTQ4MDNaFw0yNjEyMjMxMTQ4MDNaMAwxCjAIBgNV
BAMMAWEwKjAFBgMrZXADIQB/N7+6ArqGg2gEk5wwECHdISq7oiZ+F9GBc+0Vmrlw
uKNTMFEwHQYDVR0OBBYEFO+kJaApIZ4f/sCNKtj0JgEzuO3yMB8GA1UdIwQYMBaA
FO+kJaApIZ4f/sCNKtj0JgEzuO3yMA8GA1UdEwEB/wQFMAMBAf8wBQYDK2VwA0EA
tQJM8Mjkp0Yj+gyNQoWv/qtLo6esDpZZvCsn5A16E5KVSeMn7uTXPLyDjjDvH9QC
TUTRvXa3caJ0LdOFu8gLCg==
-----END CERTIFICATE-----
";
