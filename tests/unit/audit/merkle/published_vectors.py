"""Trees, proofs and notes published by other projects."""

INPUTS = tuple(
    map(
        bytes.fromhex,
        ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"),
    )
)
"""The leaves of the examples of Certificate Transparency (certificate-transparency, transparency-dev/merkle)."""
ROOTS = tuple(
    map(
        bytes.fromhex,
        (
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ),
    )
)
"""Their roots, for 0 to 8 of the leaves."""
INCLUSION = {
    (0, 8): (
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ),
    (5, 8): (
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
    (2, 3): ("fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",),
    (1, 5): (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ),
}
"""leaf_index and tree_size to the proof (transparency-dev/merkle, proof/verify_test.go, which counts leaves from 1)."""
CONSISTENCY = {
    (1, 8): INCLUSION[0, 8],
    (6, 8): (
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
    (2, 5): (
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ),
    (6, 7): (
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
}
"""old_size and new_size to the proof (the same file)."""

VERIFIER_KEYS = {
    "PeterNeumann": "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    "EnochRoot": "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop",
    "example.com/log/testdata": "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx",
}
"""Of golang.org/x/mod/sumdb/note, note_test.go, and of transparency-dev/tessera, testdata/build_log.sh."""
FOREIGN_VERIFIER_KEYS = {
    "key too long, id adjusted": "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
    "unknown algorithm, id adjusted": "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
}
"""Bad keys of note_test.go."""

LOG_SIGNER = "AeymY/SZAX0jZcJ8enZ5FY1Dz+wTML2yWSkK+9DSF3eg"
"""The signature type and the seed of the last one, published with it: it signs nothing but tests."""
LOG_NOTE = """example.com/log/testdata
100270
GRV1O0dCqmjjPvYi7CtOT79zb/fPwLNsMFWsynwU8Ac=

— example.com/log/testdata M9e0lkcvy5bAe7rrC8tCyAP+my+CLzswA91zOpBNWVU7qCojkUOHnfdQzDImoYeYH8G8PJSwOqsx0RkSa261OmKVwwM=
"""
"""Signed with it by a Tessera log, written in Go (warpfork/spicytool, spicy/parse_test.go)."""
LOG_LEAF = b"entry-100252-data-f8e847551052084e98"
LOG_LEAF_INDEX = 100252
LOG_PROOF = (
    "+4IF875THRSj6IOZo2SRpgL6buVI/cawB2iLGFLgWDQ=",
    "nBeqO1BayYMNXX05jMGGtCfprprlSVASVTUUwA0OC9E=",
    "zpUmeEe94VcV/jft8wYlUcDx9yr2kff2jq9QW295vhw=",
    "DTWvScrZyztZdQo5YhJ2Sioo6xDCRDgnoxJJJhN5vl0=",
    "550NhxNMkqzfWFptIePTfVic0rHovJMectLfzaLgh5U=",
    "aoGmNLa5zDVavVfeWhrAxU3duQ0m2TB489dVEGmquO8=",
    "Sbbxxj/8zvCs1q23zn+3wxE9OfJyqVtajvLlvg4FOaI=",
    "WuiUqI+eMKiZ4OUa9CORDO64u91gs7kbTzQYw/e/Khg=",
    "nxkvRAG/1vChJgwuphcHSaCBWcBXebV52Nd3sGxP2kI=",
    "8xVjSf6ZkYSabrgN8m3ePiWgQSpafmz8FXTCfv7guck=",
    "uIkQsFgLVnAeDt5KgZP6l3eJ6YzFz2p92KwlA50Ea5Q=",
    "8SliMOQ4QRiNiRzAt4iEDvrOC0ETwRssbnOdutGqPhA=",
)
"""A proof of one of its leaves by Go's sumdb/tlog (the same, and verify_test.go)."""
SPECIFIED_NOTE = """example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
"""  # noqa: E501 -- a signature is one line
"""The example of C2SP tlog-checkpoint, whose key was not published."""
