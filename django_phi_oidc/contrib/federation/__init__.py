"""OpenID Federation 1.0, as far as a relying party with automatic registration needs it. No Django,
clock or network in these modules:

    entity_statement      the signed statements of an entity about itself and about its subordinates    3, 8.1, 9
    trust_chain           validate_trust_chain, from a provider to the declared trust anchor            4, 6.2, 10
    metadata_policy       merge the policies of the superiors, and apply them to metadata               6.1
    provider_metadata     the metadata and keys of a provider, from its trust chain                     5.1.3, 5.2.1
    entity_configuration  the signed statement of the portal about itself                               3, 5.1.2, 12.1

`entity_statements` fetches the statements between these functions. `metadata_source` is registered
with the core, which then fetches no metadata of its own. `views` publishes the entity configuration.
"""  # noqa: E501
