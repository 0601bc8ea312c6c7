// The page with the plain form, in a browser that has JavaScript after all: the upload page does the same, resumes
// what breaks off, and its address keeps the ticket out of requests and their logs. So go there.

const ticket = new URLSearchParams(location.search).get("ticket")
if (ticket) location.replace(`./#ticket=${encodeURIComponent(ticket)}`)
