class NetworkResilientUploader {
  constructor(file, endpoint, options = {}) {
    this.file = file;
    this.endpoint = endpoint;
    this.chunkSize = options.chunkSize || 5 * 1024 * 1024; // 5MB
    this.maxRetries = options.maxRetries || 5;
  }
  async upload() {
    // Start session
    const session = await this.startSession();
    console.log('Upload session started:', session.session_id);
    // Upload chunks
    const totalChunks = Math.ceil(this.file.size / this.chunkSize);
    for (let i = 0; i < totalChunks; i++) {
      await this.uploadChunk(session.session_id, i);
      console.log(`Chunk ${i + 1}/${totalChunks} uploaded`);
    }
    console.log('Upload completed!');
  }
  async startSession() {
    const response = await fetch(this.endpoint, {
      method: 'POST',
      headers: {
        'X-Filename': this.file.name,
        'X-Total-Size': this.file.size.toString(),
        'X-Signature': 'YOUR_HMAC_SIGNATURE'
      }
    });
    return response.json();
  }
  async uploadChunk(sessionId, chunkNumber, retryCount = 0) {
    try {
      const start = chunkNumber * this.chunkSize;
      const end = Math.min(start + this.chunkSize, this.file.size);
      const chunk = this.file.slice(start, end);
      const response = await fetch(this.endpoint, {
        method: 'PUT',
        headers: {
          'X-Upload-Session-ID': sessionId,
          'X-Chunk-Number': chunkNumber.toString()
        },
        body: chunk
      });
      if (!response.ok) throw new Error(`HTTP ${response.status}`);
      return response.json();
    } catch (error) {
      if (retryCount < this.maxRetries) {
        const delay = Math.pow(2, retryCount) * 1000 + Math.random() * 1000;
        await new Promise(resolve => setTimeout(resolve, delay));
        return this.uploadChunk(sessionId, chunkNumber, retryCount + 1);
      }
      throw error;
    }
  }
}
// Usage
const uploader = new NetworkResilientUploader(fileInput.files[0], '/upload/chunked');
uploader.upload().catch(console.error);
