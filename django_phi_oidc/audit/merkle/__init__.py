"""A transparency log as pure functions: no Django, no database, no clock. The caller passes the hashes.

    rfc6962     hash_leaf, hash_node                                                  RFC 6962 2.1
    compact     CompactRange extends a tree; list_perfect_subtrees decomposes one
    proof       build and verify inclusion and consistency proofs                     RFC 6962 2.1.1, 2.1.2
    checkpoint  sign_checkpoint, verify_checkpoint, verifier keys                     C2SP tlog-checkpoint, signed-note
    cosignature verify_cosignatures, require_quorum: the signatures of witnesses      C2SP tlog-cosignature
    witness_protocol                                                                  C2SP tlog-witness
                build the request for a cosignature, and process the response
    tiles       build_tiles: the log as static files of 256 hashes                    C2SP tlog-tiles

A node has a level and an index: (level, index) is the root over the leaves [index * 2**level, (index + 1) * 2**level),
and never changes once all of them exist. Such a subtree is called perfect, and no other node has to be stored:

    level 2         0
                 /     \\
    level 1     0       1       .        seven leaves: the tree consists of the nodes (2, 0), (1, 2) and (0, 6),
               / \\     / \\     / \\       and its root is node_hash((2, 0), node_hash((1, 2), (0, 6)))
    level 0   0   1   2   3   4   5   6
"""  # noqa: E501
