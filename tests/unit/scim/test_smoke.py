import pytest
pytestmark = [pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]), pytest.mark.urls("tests.support.scim_urls")]
def test_it(scim):
    u = scim.create("Ann", sub="s1", externalId="e1", emails=[{"value": "x@y"}])
    print(u)
    print(scim.send("GET", "Users?filter=userName%20eq%20%22ANN%22").json())
    g = scim.create_group("Nurses", u["id"])
    print(g)
    print(scim.set_active(u["id"], active=False).json())
    for p in ("Schemas","ResourceTypes","ServiceProviderConfig","Users","Groups", "nope"):
        r=scim.send("GET", p); print(r.status_code, r.content[:300])
    r=scim.send("POST", ".search", {"schemas":["urn:ietf:params:scim:api:messages:2.0:SearchRequest"], "filter": 'userName eq "ann" or displayName pr'}); print(r.status_code, r.content)
    print(scim.send("DELETE", "Users/"+u["id"]).status_code, scim.send("GET", "Users/"+u["id"]).content)
