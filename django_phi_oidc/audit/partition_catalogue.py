"""Queries of PostgreSQL's catalogue about tables with partitions."""

PARTITION_SQL = """
    SELECT c.relname, pg_catalog.pg_get_expr(c.relpartbound, c.oid)
    FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = pg_catalog.to_regclass(%s) AND c.relispartition ORDER BY c.relname"""
DEFINITIONS_SQL = """
    SELECT quote_ident(n.nspname), quote_ident(pg_get_userbyid(c.relowner)),
        (SELECT json_agg(json_build_array(quote_ident(x.relname), pg_get_indexdef(x.oid), pg_get_constraintdef(k.oid)))
            FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid LEFT JOIN pg_constraint k ON k.conindid = x.oid
            WHERE i.indrelid = c.oid),
        (SELECT json_agg(json_build_array(quote_ident(tgname), pg_get_triggerdef(t.oid), tgtype & 1 = 1))
            FROM pg_trigger t WHERE tgrelid = c.oid AND NOT tgisinternal),
        (SELECT coalesce(json_agg(json_build_array(privilege_type, CASE grantee WHEN 0 THEN 'PUBLIC'
            ELSE quote_ident(pg_get_userbyid(grantee)) END)), '[]')
            FROM aclexplode(c.relacl) WHERE grantee <> c.relowner)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)"""  # noqa: E501
# Keys are never missing. What follows the name of the table in a definition is the same for all
# partitions.
MISSING_INDEXES_SQL = """
    WITH indexes AS (
        SELECT indrelid, substring(pg_catalog.pg_get_indexdef(indexrelid) FROM ' (USING .*)') AS definition
        FROM pg_catalog.pg_index WHERE NOT indisunique)
    SELECT definition FROM indexes WHERE indrelid = pg_catalog.to_regclass(%s)
    EXCEPT SELECT definition FROM indexes WHERE indrelid = pg_catalog.to_regclass(%s)"""  # noqa: E501
