"""A transparency log as pure functions: no Django, no database, no clock. Whoever has the hashes brings them along.

    rfc6962     leaf_hash, node_hash                                                  RFC 6962 2.1
    compact     CompactRange grows a tree; perfect_subtrees says what one is made of
    proof       inclusion_proof, consistency_proof, and what verifies them            RFC 6962 2.1.1, 2.1.2
    checkpoint  sign_checkpoint, verify_checkpoint, verifier keys                     C2SP tlog-checkpoint, signed-note

Nodes bear a level and an index: (level, index) is the root over the leaves [index * 2**level, (index + 1) * 2**level),
and never changes once they are all there. Such a subtree is called perfect, and no other node needs to be kept:

    level 2         0
                 /     \\
    level 1     0       1       .        seven leaves: the nodes (2, 0), (1, 2) and (0, 6) make up the tree,
               / \\     / \\     / \\       and its root is node_hash((2, 0), node_hash((1, 2), (0, 6)))
    level 0   0   1   2   3   4   5   6
"""
