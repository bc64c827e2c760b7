"""Evidence packs: one signed file for an auditor, for `phi_oidc evidence`.

collector      reads the settings, the checks, the audit log and the installed packages
sbom, oscal    the same in the formats of CycloneDX and OSCAL
pack           the file and its signature; verifies it without Django
controls.json  the tables of requirements in the manual: `make reference` writes it
"""
