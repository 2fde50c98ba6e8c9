"""What a person is told who does not get in."""

NO_TOKEN = "This conference can only be joined from its Matrix room."
OTHER_ROOM = "This conference belongs to another Matrix room."
NOT_A_MEMBER = "You are not a member of the Matrix room of this conference."
NOT_VERIFIED = "Your Matrix account could not be verified. Close the call and open it again."
UNAVAILABLE = "Your Matrix account cannot be verified right now. Please try again in a minute."
