from django_phi_oidc.audit.descriptions import get_purpose_label


def test_purpose_has_the_label_of_hl7() -> None:
    assert get_purpose_label("ETREAT") == "Emergency treatment"


def test_purpose_that_hl7_does_not_define_is_shown_as_it_is() -> None:
    assert get_purpose_label("ETREATS") == "ETREATS"
