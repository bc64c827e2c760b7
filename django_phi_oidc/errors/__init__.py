"""Every error of the app. Each refusal carries its rule's code; none carries a token, a `sub` or a claim value.

PhiOidcError
├── SignInRefused                 the sign-in ends here; `code` goes to the trail, never to the browser
│   ├── TransportError            R1, the only kind that may be tried again
│   ├── MetadataError             R2
│   ├── PushedRequestError        R3
│   ├── CallbackError             R4
│   ├── TokenResponseError        R5
│   ├── IDTokenError              R6
│   ├── UserInfoError             R7
│   └── AccountError              the person is known to the OP, but has no way in here
├── RefreshMismatch               R8, of a session that lives
├── TokenExpired, RefreshInsideTransaction
├── LogoutTokenInvalid            R9, and LogoutTokenReplayed: the OP's word that somebody signed out
├── AccessTokenInvalid            what came to the portal's own API; IntrospectionFailed: the OP can't be asked about it
├── AuditUnavailable              no event, no permit
├── SealingRefused                signing now would fork the log
├── ProofInvalid, CheckpointInvalid
├── RevealRefused                 the policy says no
├── ClaimScrubbed                 it was held once, it is gone
├── HeldForLegalReasons           it may not be erased now
├── SubjectTaken                  an administrator links whom somebody linked before
├── InvitationRefused             no activation code for that account; ActivationRefused: a code that lets nobody in
├── EmergencyRefused              it is not opened, or not reviewed by this person
├── DeclarationInvalid            what the project declared can't be meant
└── KeyRingError                  keys and what they sealed

`provider_fault` decides the status of the page: 503 for what the OP must mend, 403 for every other refusal.
"""

from .base import *
from .others import *
from .sign_in import *
